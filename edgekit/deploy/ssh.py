"""A board at the other end of ssh: one connection for everything, by the `ssh` program and the user's configuration.

::

    ssh -M -N -S SOCKET HOST        once: handshake, password; lives as long as the `Ssh`
    ssh -S SOCKET HOST COMMAND      each command, over that connection
"""

import contextlib
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

from edgekit.deploy.shell import for_any_shell
from edgekit.deploy.ssh_errors import explain
from edgekit.errors import DeployError, UsageError

#: The exit code of ssh when it fails itself; programs on the board hardly use it.
SSH_FAILED = 255
#: Seconds to connect, and until a silent connection counts as broken (4 times 15).
OPTIONS = ("ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4")
#: Options that keep the one connection ours, whatever the user's configuration says of shared ones and commands.
OURS = ("ControlPersist=no", "RemoteCommand=none")
#: Words of --ssh that would undo that: the first -o and the last -S win in ssh, and a second -M makes it ask.
NOT_YOURS = re.compile(r"(?i:(-o)?\s*Control(Master|Path|Persist)\b)|-[SM]")
#: Seconds for connecting, with time for the user to type a password; sshd allows 120 for a login.
LOGIN_S = 300.0
#: Bytes of the longest folder for ssh's socket: the path of a socket has at most 104 on some systems, and ssh adds to
#: the name. And of what such a folder may be called, since ssh reads more into other characters.
SHORT, PLAIN = 60, re.compile(r"[\w./@+:-]+", re.ASCII)


class Done(NamedTuple):
    """How a command on the board ended: exit code, standard output, standard error as text."""

    code: int
    out: bytes
    err: str

    @property
    def words(self) -> str:
        """The last lines of standard error, or if that is empty of standard output, to be quoted in an error."""
        lines = (self.err.strip() or self.out.decode("utf-8", "replace").strip()).splitlines()
        return "\n".join(lines[-15:]) or "nothing"


def quote(text: str) -> str:
    """`text` quoted as one word for a POSIX shell; UsageError when it holds a zero byte."""
    if "\0" in text:
        raise UsageError(f"{text!r} holds a zero byte, which no path or argument can")
    return shlex.quote(text)


def assignments(pairs: dict[str, str]) -> str:
    """The beginning of a shell command that sets variables for it: "A='b c' D=e "."""
    return "".join(f"{name}={quote(value)} " for name, value in pairs.items())


class Ssh:
    """Runs commands on `host` ([USER@]HOST); `command` is ssh with the user's options. A context manager."""

    def __init__(self, host: str, command: str = "ssh") -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--ssh {command!r}: {error}; expected for example 'ssh -p 2222 -i KEY'") from None
        if not self._command or not host or host.startswith("-"):
            raise UsageError(f"--host {host!r}, --ssh {command!r}: expected [USER@]HOST, and ssh with its options")
        for word in self._command[1:]:
            if NOT_YOURS.match(word):
                raise UsageError(f"--ssh {command!r}: leave {word} out, the shared connection is edgekit's own")
        self.host = host
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Ssh":
        self._folder = tempfile.TemporaryDirectory(prefix="edgekit-", dir=_short_folder())
        return self

    def __exit__(self, *_: object) -> None:
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
        self._folder.cleanup()

    def run(
        self,
        command: str,
        data: Iterable[bytes] | None = None,
        on_error_line: Callable[[str], None] = lambda line: None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Done:
        """How `command` ended, run by a POSIX shell with `data` as input; DeployError only when ssh itself fails.

        What the login shell prints as it starts is left out, unless the command never began. `on_error_line` is called
        with each line of standard error as it comes, `on_output` with standard output, which is then not in `Done`. An
        exception that they raise ends the command, and is raised here.
        """
        mark = f"edgekit-{secrets.token_hex(8)}"
        process = self._start(self.words(f"echo {mark}; {{ echo; echo {mark}; }} >&2\n{command}"), data is not None)
        assert process.stdout is not None and process.stderr is not None
        out: list[bytes] = []
        err: list[bytes] = []
        raised: list[BaseException] = []

        def hear(line: bytes) -> None:
            err.append(line)
            on_error_line(line.decode("utf-8", "replace").rstrip())

        said, complained = _After(mark, on_output or out.append), _After(mark, hear)

        def read(stream: IO[bytes], take: Callable[[bytes], object]) -> None:
            try:
                with stream:
                    for line in stream:
                        take(line)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that asked
                raised.append(error)
                process.kill()

        readers = [
            threading.Thread(target=read, args=(process.stdout, said), daemon=True),
            threading.Thread(target=read, args=(process.stderr, complained), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            if process.stdin is not None:
                try:
                    for chunk in data or ():
                        if process.poll() is not None:
                            break
                        process.stdin.write(chunk)
                        process.stdin.flush()
                    process.stdin.close()
                except BrokenPipeError:
                    pass  # it has ended, and says why
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        for reader in readers:
            reader.join()
        if raised:
            raise raised[0]
        done = Done(
            code,
            b"".join(out if said.begun else said.before),
            b"".join(err if complained.begun else complained.before).decode("utf-8", "replace"),
        )
        if code == SSH_FAILED:
            raise self._failed(done.err)
        return done

    def words(self, command: str) -> list[str]:
        """Program and arguments that run `command` over the one connection, for a process that the caller starts.

        A line ends before its output begins: the login shell may print something without one.
        """
        self._connect()
        return [*self._command, *self._options("no"), "--", self.host, for_any_shell(f"echo; {command}")]

    @contextlib.contextmanager
    def tunnel(self, port: int) -> Iterator[int]:
        """A tunnel: gives a port on the board's loopback that leads to `port` on this machine."""
        self._connect()
        forward = ["-R", f"127.0.0.1:0:127.0.0.1:{port}", "--", self.host]
        asked = subprocess.run(
            [*self._command, *self._options("no"), "-O", "forward", *forward], capture_output=True, text=True
        )
        if asked.returncode or not asked.stdout.strip().isdecimal():
            raise DeployError(
                f"{self.host}: no port there can be led here: {(asked.stderr + asked.stdout).strip()}\n"
                "its sshd must allow it (AllowTcpForwarding)"
            )
        try:
            yield int(asked.stdout)
        finally:
            # A broken connection has closed its tunnels already: errors are ignored.
            subprocess.run([*self._command, *self._options("no"), "-O", "cancel", *forward], capture_output=True)

    def _connect(self) -> None:
        if self._master is not None:
            if self._master.poll() is not None:
                raise self._failed("")
            return
        with open(self._path("words"), "wb") as words:
            self._master = self._start(
                [*self._command, "-M", "-N", *self._options("yes"), "--", self.host], False, words
            )
        until = time.monotonic() + LOGIN_S
        while not os.path.exists(self._path("socket")):
            if self._master.poll() is not None:
                raise explain(self.host, self._master_words())
            if time.monotonic() > until:
                raise DeployError(
                    f"{self.host}: no connection came about within {LOGIN_S:g} s; try {shlex.join(self._command)} by "
                    f"hand\nssh said: {self._master_words().strip() or 'nothing'}"
                )
            time.sleep(0.02)

    def _failed(self, words: str) -> DeployError:
        assert self._master is not None
        # When the one connection is gone, a command opens its own, which may fail for another reason: say both.
        return explain(self.host, self._master_words() + words, broken=self._master.poll() is not None)

    def _options(self, master: str) -> list[str]:
        # Without a terminal nobody can answer a question.
        asking = () if sys.stdin is not None and sys.stdin.isatty() else ("BatchMode=yes",)
        options = (*OPTIONS, *OURS, *asking, f"ControlMaster={master}", f"ControlPath={self._path('socket')}")
        return ["-T", *(word for option in options for word in ("-o", option))]

    def _start(self, words: list[str], feed: bool, err: IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if err else subprocess.PIPE,
                stderr=err or subprocess.PIPE,
            )
        except OSError as error:
            raise DeployError(f"{self._command[0]} cannot be started: {error.strerror}; is OpenSSH there?") from None

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.name, name)

    def _master_words(self) -> str:
        with open(self._path("words"), encoding="utf-8", errors="replace") as file:
            return file.read()


class _After:
    """Hands the lines after `mark` to `take`; those before it are kept in `before`."""

    def __init__(self, mark: str, take: Callable[[bytes], object]) -> None:
        self._mark = mark.encode()
        self._take = take
        self.begun = False
        self.before: list[bytes] = []

    def __call__(self, line: bytes) -> None:
        if self.begun:
            self._take(line)
        elif line.strip() == self._mark:
            self.begun = True
        else:
            self.before.append(line)


def _short_folder() -> str:
    """Where temporary files lie, or else another folder for them with a path that is short enough for a socket."""
    for folder in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"):
        if len(folder) <= SHORT and PLAIN.fullmatch(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise DeployError(
        f"TMPDIR {tempfile.gettempdir()} is too long for ssh's socket, and neither XDG_RUNTIME_DIR nor /tmp can be "
        f"written to: expected a folder of at most {SHORT} letters, digits and ./@+:-_"
    )

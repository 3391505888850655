"""Children: the processes that `edgekit train` starts, their JSON lines as they come, and their orderly end."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from edgekit.errors import ChildFailed, EdgekitError

Event = dict[str, Any]
#: Seconds that children have to end once they are asked to.
GRACE_S = 5.0


class Children:
    """Child processes by name. As a context manager it leaves none behind, however it is left.

    `command` starts every child, its arguments follow. A child writes its events to standard output, a JSON object a
    line; other lines and its standard error are its last words, should it fail. `on_start` is told the name and the
    process of every child as it starts. `variables` are set in the environment of all.
    """

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", "edgekit"),
        on_start: "Callable[[str, subprocess.Popen[str]], None]" = lambda name, process: None,
        variables: Mapping[str, str] = {},
    ) -> None:
        self._command = list(command)
        self._variables = dict(variables)
        self._on_start = on_start
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._events: queue.Queue[tuple[str, Event | None]] = queue.Queue()
        self._words: dict[str, list[str]] = {}
        self._readers: dict[str, list[threading.Thread]] = {}
        self._running = 0
        #: Held while a child starts; once `stop` has begun none does.
        self._starting = threading.Lock()
        self._stopped = False

    def start(
        self,
        name: str,
        arguments: list[str],
        cores: Sequence[int] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Starts child `name`: `command` (default: the one that starts every child) with `arguments`.

        `cores` are the processors that it may run on; None: all.
        """
        words = [*(self._command if command is None else command), *arguments]
        started: Future[subprocess.Popen[str]] = Future()
        # In a thread of its own: a signal interrupts the main thread alone, and there it could come between the birth
        # of the process and its entry among those that `stop` ends.
        threading.Thread(target=self._start, args=(name, words, started), daemon=True).start()
        process = started.result()
        if cores:
            os.sched_setaffinity(process.pid, cores)
        self._on_start(name, process)

    def pid(self, name: str) -> int:
        """The process id of child `name`."""
        return self._processes[name].pid

    def ended(self, name: str) -> bool:
        """Whether child `name` has ended by now."""
        return self._processes[name].poll() is not None

    def events(self, forgiven: Container[int] = ()) -> Iterator[tuple[str, Event]]:
        """(name, event) as they arrive, until every child has ended. ChildFailed as soon as one ends badly.

        One that ends with an exit code of `forgiven` gives an "ended" event, with "code" and its last words, "reason".
        """
        while self._running:
            try:
                # In slices: a signal that the system hands to another thread does not wake a wait without end.
                name, event = self._events.get(timeout=0.5)
            except queue.Empty:
                continue
            if event is not None:
                yield name, event
                continue
            self._running -= 1
            code = self._processes[name].wait()
            for thread in self._readers[name]:
                thread.join(GRACE_S)  # its last words may still be on their way
            if code in forgiven:
                yield name, {"event": "ended", "code": code, "reason": "\n".join(self._words[name])}
            elif code:
                raise ChildError(name, code, self._words[name])

    def stop(self) -> None:
        """Asks every child that still runs to end, and kills it when it has not within `GRACE_S`."""
        self._stopped = True
        try:
            processes = self._started()
            for process in processes:
                if process.poll() is None:
                    process.terminate()
            until = time.monotonic() + GRACE_S
            for process in processes:
                process.wait(timeout=max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            pass  # killed below
        finally:  # also when a second Ctrl-C cuts the waiting short
            processes = self._started()
            for process in processes:
                if process.poll() is None:
                    process.kill()
            for process in processes:
                process.wait()
        for name, process in self._processes.items():
            for thread in self._readers[name]:
                thread.join()
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            process.stderr.close()

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, name: str, words: Sequence[str], started: "Future[subprocess.Popen[str]]") -> None:
        """Starts child `name` and tells `started` of it, or of the error; nothing once `stop` has begun."""
        with self._starting:
            try:
                if self._stopped:
                    raise RuntimeError(f"{name} was to start after its parent had stopped all")
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **self._variables},
                )
            except BaseException as error:  # noqa: BLE001 - raised by the thread that asked
                started.set_exception(error)
                return
            self._words[name] = []
            self._readers[name] = [
                threading.Thread(target=target, args=(name, process), daemon=True)
                for target in (self._read_events, self._read_errors)
            ]
            for reader in self._readers[name]:
                reader.start()
            self._processes[name] = process
            self._running += 1
        started.set_result(process)

    def _started(self) -> "list[subprocess.Popen[str]]":
        """All processes, one that is being started too."""
        with self._starting:
            return list(self._processes.values())

    def _read_events(self, name: str, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = _event(line)
            if event is None:
                self._hear(name, line)
            else:
                self._events.put((name, event))
        self._events.put((name, None))

    def _read_errors(self, name: str, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._hear(name, line)

    def _hear(self, name: str, line: str) -> None:
        self._words[name].append(line.rstrip())
        del self._words[name][:-20]


class ChildError(ChildFailed):
    """ChildFailed with the exit code of the child, when that is one of edgekit's own."""

    def __init__(self, name: str, code: int, last_lines: list[str]) -> None:
        end = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{name} {end}: " + ("\n".join(last_lines) or "no message"))
        known = {cls.exit_code for cls in _subclasses(EdgekitError)}
        self.exit_code = code if code in known else ChildFailed.exit_code


def _event(line: str) -> Event | None:
    """The JSON object on `line`; None when there is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _subclasses(cls: type[EdgekitError]) -> Iterator[type[EdgekitError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)

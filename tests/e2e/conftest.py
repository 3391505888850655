"""A board for deployments: a real sshd on loopback, with its own port, keys and home."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bundle import Bundle

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
CONFIG = """ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
PidFile none
SetEnv HOME={home}{variables}
"""


class Board:
    """sshd below `folder`; `wrapper` starts it, in namespaces of its own for example, with more `variables`."""

    def __init__(self, folder: Path, wrapper: tuple[str, ...] = (), variables: str = "") -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        for name in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True, timeout=300
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        config = CONFIG.format(port=self.port, folder=folder, home=self.home, variables=variables)
        (folder / "sshd_config").write_text(config)
        self.knows(self.port, (folder / "host_key.pub").read_text())
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # where sshd locks itself in
        words = (folder / "sshd.log").open("w")
        with words:
            command = [*wrapper, SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        until = time.monotonic() + 300
        while not self.listens():
            assert self.process.poll() is None and time.monotonic() < until, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        return (self.folder / "sshd.log").read_text()

    def listens(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def knows(self, port: int, public: str) -> Path:
        """A file of known hosts with the key `public` for `port`."""
        path = self.folder / f"known_hosts.{port}"
        path.write_text(f"[127.0.0.1]:{port} {' '.join(public.split()[:2])}\n")
        return path

    def config(self, more: str) -> Path:
        """A user's configuration of ssh with this board's port and keys, and `more`."""
        path = self.folder / "ssh_config"
        known = self.knows(self.port, (self.folder / "host_key.pub").read_text())
        lines = [f"Port {self.port}", f"IdentityFile {self.folder / 'key'}", "IdentitiesOnly yes"]
        path.write_text("\n".join([*lines, f"UserKnownHostsFile {known}", "GlobalKnownHostsFile none", more, ""]))
        return path

    def ssh(self, port: int | None = None, key: str = "key", known: Path | None = None) -> str:
        port = port or self.port
        known = known or self.knows(port, (self.folder / "host_key.pub").read_text())
        options = f"-p {port} -i {self.folder / key} -o UserKnownHostsFile={known} -o IdentitiesOnly=yes"
        return f"ssh -F none {options} -o GlobalKnownHostsFile=none"

    def command(self, *words: str, ssh: str | None = None, python: str = sys.executable) -> list[str]:
        """``edgekit deploy`` to this board."""
        where = ["--host", f"{getpass.getuser()}@127.0.0.1", "--ssh", ssh or self.ssh(), "--python", python]
        return [sys.executable, "-m", "edgekit", "deploy", *where, *words]

    def deploy(self, *words: str, ssh: str | None = None, python: str = sys.executable) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of it."""
        command = self.command(*words, ssh=ssh, python=python)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout, done.stderr

    def close(self) -> None:
        self.process.kill()  # unshare takes no other end, and takes all that it has started with it
        self.process.wait(timeout=300)


def require_sshd() -> None:
    if not os.access(SSHD, os.X_OK) or shutil.which("ssh") is None:
        pytest.skip("no sshd or no ssh here: apt-get install openssh-server openssh-client")


@pytest.fixture
def heard() -> Iterator[None]:
    """A shell starts what it puts in the background with SIGINT ignored, and children would inherit that from here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    require_sshd()
    made = Board(tmp_path_factory.mktemp("board") / "b")
    yield made
    made.close()


@pytest.fixture(scope="session")
def systemd_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """The same with a real systemd of the user beside it, in namespaces of their own."""
    require_sshd()
    folder = tmp_path_factory.mktemp("systemd")
    start = folder / "start.sh"
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    start.write_text(SYSTEMD.format(runtime=runtime, home=folder / "b" / "home"))
    wrapper = ("unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "-C", "sh", str(start))
    tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True, timeout=300)
    if tried.returncode:
        pytest.skip(f"no systemd of a user can be started here: {(tried.stderr + tried.stdout).strip()[-200:]}")
    made = Board(folder / "b", wrapper, f" XDG_RUNTIME_DIR={runtime}")
    yield made
    made.close()


SYSTEMD = """set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
export XDG_RUNTIME_DIR={runtime} HOME={home}
/lib/systemd/systemd --user &
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    case $(systemctl --user is-system-running 2>&1) in running|degraded) exec "$@";; esac
    sleep 0.2
done
echo "systemd --user did not answer" >&2
exit 1
"""


@pytest.fixture
def bundle(small_bundle: Bundle) -> str:
    return small_bundle.path

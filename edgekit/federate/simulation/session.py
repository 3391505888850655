"""Flower's programs on this machine: a server of Flower's, and apps that are run on it, with clients that it simulates.

::

    flower-superlink <--the app-- flwr run --stream  --> what the app's server prints
         '-- flwr-simulation: the app's server in a thread, its clients in Ray's processes
"""

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit.errors import ChildFailed
from edgekit.federate.simulation.environment import variables
from edgekit.launch.processes import Children, Event

#: Seconds that Flower's server has to listen, and that what it started has to end by itself when it is gone.
START_S, END_S = 120.0, 15.0
#: The user's side of Flower finds the server by this.
CONNECTION = """[superlink]
default = "here"

[superlink.here]
address = "127.0.0.1:{port}"
insecure = true
"""


class Session:
    """A server of Flower's own programs in the folder `programs`; `session` starts one, and ends all with it."""

    def __init__(self, children: Children, programs: Path) -> None:
        self._children, self._programs = children, programs
        self._runs = 0

    def run(self, app: Path, settings: Mapping[str, str | int], clients: int, workers: int) -> Iterator[Event]:
        """What the server of the folder `app` prints, JSON objects, until it has ended, and at last "ended".

        `settings` of the app, by name; `workers` of the `clients` work at once. ChildFailed where a program of Flower
        fails. Whether the app did, Flower does not say: "reason" of "ended" are the last words of all.
        """
        self._runs += 1
        name = f"flwr run {self._runs}"
        given = " ".join(f"{key}={_toml(value)}" for key, value in settings.items())
        simulated = f"num-supernodes={clients} client-resources-num-cpus=1 init-args-num-cpus={min(workers, clients)}"
        self._children.start(
            name,
            ["run", str(app), "here", "--stream", "--run-config", given, "--federation-config", simulated],
            command=[str(self._programs / "flwr")],
        )
        for source, event in self._children.events(forgiven=(0,)):
            if event["event"] == "ended" and source != name:
                raise ChildFailed(f"Flower's server ended by itself: {event['reason']}")
            yield event
            if event["event"] == "ended":
                return


@contextlib.contextmanager
def session(programs: Path) -> Iterator[Session]:
    """A session of Flower's `programs`. However it is left, none of its processes stays behind."""
    with tempfile.TemporaryDirectory(prefix="edgekit-flower-") as home:
        port = _free_port()
        Path(home, "config.toml").write_text(CONNECTION.format(port=port), encoding="utf-8")
        try:
            with Children(variables=variables(programs, Path(home))) as children:
                arguments = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
                children.start("superlink", arguments, command=[str(programs / "flower-superlink")])
                _wait(children, port)
                yield Session(children, programs)
        finally:
            end_all(home)


def end_all(home: str) -> None:
    """Waits until all processes of Flower's `home` have ended, and kills those that do not."""
    until = time.monotonic() + END_S
    try:
        while processes(home) and time.monotonic() < until:
            time.sleep(0.2)
    finally:  # also when a second Ctrl-C cuts the waiting short
        for pid in processes(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes(home: str) -> list[int]:
    """The ids of this user's processes that have `home` as FLWR_HOME in their environment, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        # It has ended, or is another user's.
        except OSError:
            continue
        if f"FLWR_HOME={home}".encode() in environment and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def _wait(children: Children, port: int) -> None:
    """Until Flower's server takes connections at `port`; ChildFailed where it ends, or takes too long."""
    until = time.monotonic() + START_S
    while not _listens(port):
        if children.ended("superlink"):
            # Raises the error of its end, with its last words.
            for _ in children.events():
                continue
            raise ChildFailed("Flower's server ended before anyone could reach it")
        if time.monotonic() > until:
            raise ChildFailed(f"Flower's server did not listen at port {port} within {START_S:.0f} s")
        time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _toml(value: str | int) -> str:
    return str(value) if isinstance(value, int) else '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))

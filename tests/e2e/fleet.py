"""A server and devices as real processes, each with its events as they come."""

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgekit

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(Path(edgekit.__file__).parent.parent), OMP_NUM_THREADS="1")
#: Seconds that any wait may take: machines are busy.
LIMIT_S = 300
#: Seconds that a line has to come back, where a test does not say: else who is killed is waited for for a minute.
RECONNECT_S = "3"
Event = dict[str, Any]


class Process:
    """A process of edgekit; `events` are those that were waited for and passed by."""

    def __init__(self, command: list[str], **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**ENVIRONMENT, **variables},
        )  # fmt: skip
        self.events: list[Event] = []
        self.said: list[str] = []
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._events, self._words)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, kind: str, **fields: Any) -> Event:
        """The next event of `kind` that has these fields."""
        while True:
            event = self._queue.get(timeout=LIMIT_S)
            assert event is not None, f"ended without '{kind}': {self.said[-20:]}"
            self.events.append(event)
            if event["event"] == kind and all(event.get(name) == value for name, value in fields.items()):
                return event

    def end(self) -> int:
        """Waits for its end; its exit code. All its events are in `events` then."""
        code = self.process.wait(timeout=LIMIT_S)
        for thread in self._threads:
            thread.join(LIMIT_S)
        while not self._queue.empty():
            event = self._queue.get()
            if event is not None:
                self.events.append(event)
        return code

    def last(self, kind: str) -> Event:
        return [event for event in self.events if event["event"] == kind][-1]

    def close(self) -> None:
        for thread in self._threads:
            thread.join(LIMIT_S)
        for file in (self.process.stdout, self.process.stderr):
            assert file is not None
            file.close()

    def _events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def _words(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(line.rstrip() for line in self.process.stderr)


class Fleet:
    """One `edgekit serve` of the bundle at `path`, and the devices that a test starts."""

    def __init__(self, path: str, folder: Path, *arguments: str) -> None:
        self.path, self.folder = path, folder
        self.processes: list[Process] = []
        self.server = self.start("serve", "--listen", "127.0.0.1:0", "--out", str(folder / "server"), *arguments)
        self.port = int(self.server.wait_for("listening")["port"])

    def device(self, name: str, *arguments: str, port: int | None = None, program: str | None = None) -> Process:
        """A device that keeps its files in a folder of its name; `program` is another file to run than edgekit's."""
        words = ["--server", f"127.0.0.1:{port or self.port}", "--name", name, "--out", str(self.folder / name)]
        return self.start("run", *words, *arguments, program=program)

    def digests(self, name: str) -> dict[str, str]:
        """File -> sha256 of what `name` kept."""
        files = sorted((self.folder / name).glob("*.safetensors"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def close(self) -> None:
        for each in self.processes:
            if each.process.poll() is None:
                each.process.terminate()
        until = time.monotonic() + LIMIT_S
        for each in self.processes:
            each.process.wait(timeout=until - time.monotonic())
            each.close()

    def start(self, command: str, *words: str, program: str | None = None) -> Process:
        """`edgekit COMMAND` of the bundle, with `words`; it ends with the fleet."""
        first = [program] if program else ["-m", "edgekit", command]
        process = Process([*first, self.path, "--json", "--reconnect", RECONNECT_S, *words])
        self.processes.append(process)
        return process


@contextlib.contextmanager
def fleet(path: str, folder: Path, *arguments: str) -> Iterator[Fleet]:
    """A fleet that leaves no process behind."""
    made = Fleet(path, folder, *arguments)
    try:
        yield made
    finally:
        made.close()

"""A soak: a server and devices that come and go for a while, as real processes, watched from outside.

\b
python bench/soak.py [--minutes 20] [--devices 6] --out FILE

A tiny network learns digits, in sync mode. Each process is started again when it ended, as a service manager does it,
with --resume. Meanwhile, as drawn from --seed, devices leave (SIGTERM) and come back later, are killed (SIGKILL), or
sleep (SIGSTOP, then SIGCONT). The server is killed after a third of the time, and stopped (SIGTERM) after two thirds.
Every ten seconds it is asked for its status, and its memory, threads and open files are counted. What may not happen:
a process that ends by itself, but for a device that joined after the checkpoint that all went back to, which says so; a
traceback; a server that makes no steps for a minute. ``--show FILE`` prints the table of such a file.
"""

import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import record
from arguments import Arguments

from edgekit.data import images, registry
from edgekit.errors import TransportError
from edgekit.machine import describe

sys.path.append(str(Path(__file__).parents[1]))
from tests.conftest import export_small
from tests.e2e.fleet import Process
from tests.runtime.loopback import coded_by

#: Seconds from one look at the server to the next; that it may make no step; until a process is started again; and
#: from one event to the next, at most.
LOOK_S, STUCK_S, AGAIN_S, APART_S = 10.0, 60.0, 2.0, 10.0
#: Seconds that a device that left stays away, and that one sleeps.
AWAY_S, ASLEEP_S = (5.0, 40.0), (2.0, 12.0)
#: How a process ends that was sent a signal; the second where it had hardly begun.
STOPPED, KILLED = (130, -signal.SIGTERM), (-signal.SIGKILL,)
HEADS = (
    "minutes", "devices", "left", "killed", "slept", "server killed / stopped", "steps", "longest without a step, s",
    "accuracy", "server's memory, MiB", "slope, MiB/min", "threads", "open files", "went wrong",
)  # fmt: skip


class Member:
    """A process that is started again whenever it ended."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name, self._words = name, words
        self._process: Process | None = None
        #: When it is to be started again; how it is expected to have ended; when it wakes up.
        self.again, self._wakes = 0.0, 0.0
        self._expected: tuple[int, ...] = ()
        #: How it ended, and what went wrong.
        self.ends, self.wrong, self.events = Counter[int](), list[str](), list[dict[str, Any]]()

    @property
    def pid(self) -> int:
        """Of its process; 0 while there is none."""
        return self._process.process.pid if self._process is not None else 0

    def signal(self, number: int, away: float = AGAIN_S) -> None:
        """Ends the process, and keeps it away for so many seconds."""
        if self._process is not None and not self._wakes:
            self._expected = STOPPED if number == signal.SIGTERM else KILLED
            self._process.process.send_signal(number)
            self.again = time.monotonic() + away

    def sleep(self, seconds: float) -> None:
        """Stops the process for so many seconds."""
        if self._process is not None and not self._expected:
            self._process.process.send_signal(signal.SIGSTOP)
            self._wakes = time.monotonic() + seconds

    def look(self) -> None:
        """Starts it, wakes it up, or notes how it ended; where that is due."""
        now = time.monotonic()
        if self._process is None:
            if now >= self.again:
                self._process, self._expected = Process(["-m", "edgekit", *self._words]), ()
        elif self._process.process.poll() is not None:
            self._note(self._process)
            self._process, self.again = None, max(self.again, now + AGAIN_S)
        elif self._wakes and now >= self._wakes:
            self._process.process.send_signal(signal.SIGCONT)
            self._wakes = 0.0

    def end(self) -> None:
        """Stops the process for good."""
        if self._process is not None:
            self._process.process.send_signal(signal.SIGCONT)
            self._expected = STOPPED
            self._process.process.send_signal(signal.SIGTERM)
            self._note(self._process)

    def _note(self, process: Process) -> None:
        code = process.end()
        process.close()
        self.ends[code] += 1
        self.events += process.events
        # It went back to a checkpoint that does not know it: it says so, and begins anew.
        unknown = code == TransportError.exit_code and any("start the device again" in line for line in process.said)
        if code not in self._expected and not unknown:
            self.wrong.append(
                f"{self.name} ended with {code}, expected {self._expected or 'none'}: {process.said[-3:]}"
            )
        if any("Traceback" in line for line in process.said):
            self.wrong.append(f"{self.name}: {process.said[-12:]}")


class Watched:
    """The server, looked at from outside."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/status"
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self.samples: list[dict[str, float]] = []
        self._moved, self._steps, self.longest = time.monotonic(), -1, 0.0

    def look(self, pid: int, begun: float) -> None:
        """Asks for its status, if it is there."""
        try:
            with self._open(self._url, timeout=5) as answer:
                steps = json.load(answer)["steps"]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return
        now = time.monotonic()
        if steps != self._steps:
            self._moved, self._steps = now, steps
        self.longest = max(self.longest, now - self._moved)
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            mib = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        threads, files = len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))
        self.samples.append({
            "s": round(now - begun, 1), "pid": pid, "steps": steps, "mib": round(mib, 1), "threads": threads,
            "files": files,
        })  # fmt: skip

    def slope(self) -> float:
        """MiB a minute of the last server, after its first minute."""
        own = [each for each in self.samples if each["pid"] == self.samples[-1]["pid"]]
        later = [each for each in own if each["s"] >= own[0]["s"] + 60] or own
        return float(60 * np.polyfit([each["s"] for each in later], [each["mib"] for each in later], 1)[0])


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def soak(bundle: str, folder: Path, options: Any) -> dict[str, Any]:
    """The record's results."""
    rng, ports, done = random.Random(options.seed), (free_port(), free_port()), Counter[str]()
    address, out = f"127.0.0.1:{ports[0]}", str(folder / "server")
    common = ["--json", "--listen", address, "--metrics", f"127.0.0.1:{ports[1]}"]
    first = ["serve", bundle, *common, "--devices", str(options.devices), "--out", out, "--checkpoint", "20s",
             "--schedule", "constant", "--step-wait", "5", "--round-wait", "10", "--reconnect", "60"]  # fmt: skip
    server = Member("server", first)
    devices = [
        Member(f"device-{i}", ["run", bundle, "--json", "--server", address, "--name", f"device-{i}", "--epochs",
                               "100000", "--share", f"{i}/{options.devices}", "--out", str(folder / f"device-{i}"),
                               "--reconnect", "60", "--wait", "60", "--evaluate-every", "5", "--resume"])
        for i in range(options.devices)
    ]  # fmt: skip
    watched, begun = Watched(ports[1]), time.monotonic()
    until, looks, acts = begun + 60 * options.minutes, begun, begun + 3 * APART_S
    hits = [(begun + 20 * options.minutes, signal.SIGKILL), (begun + 40 * options.minutes, signal.SIGTERM)]
    try:
        while (now := time.monotonic()) < until:
            for member in (server, *devices):
                member.look()
            if server.pid and now >= looks:
                server._words = ["serve", *common, "--resume", out]
                watched.look(server.pid, begun)
                looks = now + LOOK_S
            if hits and now >= hits[0][0]:
                number = hits.pop(0)[1]
                server.signal(number)
                done[f"server {number.name}"] += 1
            if now >= acts:
                act, who = rng.choice(("left", "killed", "slept")), rng.choice(devices)
                if act == "slept":
                    who.sleep(rng.uniform(*ASLEEP_S))
                else:
                    left = act == "left"
                    who.signal(signal.SIGTERM if left else signal.SIGKILL, rng.uniform(*AWAY_S) if left else AGAIN_S)
                done[act] += 1
                acts = now + rng.uniform(0, APART_S)
            time.sleep(0.1)
    finally:
        for member in (*devices, server):
            member.end()
    tests = [event for event in server.events if event["event"] == "tested"]
    wrong = [line for member in (server, *devices) for line in member.wrong]
    if watched.longest > STUCK_S:
        wrong.append(f"no step for {watched.longest:.0f} s")
    return {
        "done": dict(done), "ends": {member.name: {str(code): n for code, n in member.ends.items()}
                                     for member in (server, *devices)},
        "samples": watched.samples, "longest": round(watched.longest, 1), "slope": round(watched.slope(), 3),
        "accuracy": [round(event["accuracy"], 4) for event in tests], "wrong": wrong,
    }  # fmt: skip


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    found, done = made["results"], Counter(made["results"]["done"])
    last, accuracy = found["samples"][-1], found["accuracy"]
    return markdown.table(HEADS, [(
        f"{made['minutes']:g}", str(made["devices"]), *(str(done[act]) for act in ("left", "killed", "slept")),
        f"{done['server SIGKILL']} / {done['server SIGTERM']}", str(last["steps"]), f"{found['longest']:.0f}",
        f"{accuracy[-1]:.4f}" if accuracy else "none", f"{last['mib']:.0f}", f"{found['slope']:+.2f}",
        str(last["threads"]), str(last["files"]), str(len(found["wrong"])),
    )])  # fmt: skip


def main() -> int:
    arguments = Arguments(__doc__)
    arguments.add(minutes=20.0, devices=6, seed=0)
    options = arguments.parse_or_show(table)
    with tempfile.TemporaryDirectory() as scratch:
        digits = images.fit(registry.load("digits", None), (1, 16, 16))
        small = export_small(Path(scratch) / "small", digits, "sgq", groups=4, bits=4)
        results = soak(coded_by("context", small, Path(scratch)).path, Path(scratch), options)
    made = {**record.head("torch", "numpy", "onnxruntime", "grpc"), "machine": describe()}
    made.update({name: getattr(options, name) for name in ("minutes", "devices", "seed")}, results=results)
    if options.out:
        record.write(made, options.out)
    sys.stdout.write(table(made) + "\n" + "".join(f"{line}\n" for line in results["wrong"]))
    return int(bool(results["wrong"]))


if __name__ == "__main__":
    sys.exit(main())

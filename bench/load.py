"""64 devices at one server: steps/s, latency, memory and fairness, and its steps/s against a bare PyTorch loop.

``python bench/load.py [--mode sync] [--devices 64] [--seconds 120] [--out FILE]``: `edgekit serve` in a process of its
own, and the devices in this one. They compute nothing: what they send was coded before, by the exported front half and
a codec that remembers, in --sequences different orders of the images; a gradient is read and thrown away. The protocol
is whole: hello, features, bye, over one gRPC line for each device.

In turn, --turns times: the server works for its part of --seconds, then it has nothing to do and a third process trains
the back half alone, a plain PyTorch module, channels last, by SGD, on the same features, decoded before, as many images
a step, with as many threads. Latency is that of a batch, from sending it until its gradient is there, with --in-flight
batches under way. Memory is the server's resident set, each second; its slope is that after the first quarter.
The processor time of a step, of both, says less than steps/s, and holds where other work takes turns with them.
``--show FILE`` prints the table of such a file.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from bundles import exported
from server_step import front_codes
from torch.nn.functional import cross_entropy

from edgekit.bundle import open_bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split
from edgekit.launch.flags import as_flags
from edgekit.launch.processes import Children, Event
from edgekit.line.labels import pack_labels
from edgekit.line.messages import Ack, Bye, Feature, Gradient, Hello, Welcome
from edgekit.line.meter import Meter
from edgekit.machine import describe, usage
from edgekit.measure.methods import Method, parse
from edgekit.runtime.transport import Grpc

SHARED = ("model", "dataset", "codec", "mode", "devices", "batch", "in_flight", "seconds", "turns", "server_threads")
HEADS = (
    "mode", "devices", "steps/s", "images/s", "to PyTorch", "CPU s of a step", "PyTorch's", "latency p50, ms", "p95",
    "p99", "least / most served", "memory, MiB", "slope, MiB/min",
)  # fmt: skip
#: Features that the bare loop trains on, one after another.
BATCHES = 8
Recorded = list[tuple[bytes, bytes]]


def recorded(known: tuple[Arrays, np.ndarray, int], method: Method, batch: int, steps: int, seed: int) -> Recorded:
    """Labels and codes of `steps` batches, as a device sends them one after another."""
    codes, labels, classes = known
    rng, stream = np.random.default_rng(seed), feature_codec(method.codec, method.config).stream()
    made: Recorded = []
    order: np.ndarray = np.empty(0, dtype=np.int64)
    while len(made) < steps:
        if len(order) < batch:
            order = rng.permutation(len(labels))
        chosen, order = order[:batch], order[batch:]
        own = {name: array[chosen] for name, array in codes.items()}
        made.append((pack_labels(labels[chosen], classes), stream.pack(own, chosen)))
        stream.update(own, chosen)
    return made


class LoadDevice:
    """A device that sends what was recorded; `served` are the times and latencies of its batches, in seconds."""

    def __init__(self, index: int, port: int, digest: str, batches: Recorded, batch: int) -> None:
        self._batches, self._batch = batches, batch
        self._transport = Grpc(f"127.0.0.1:{port}", Meter(), timeout_s=600.0)
        self._hello = Hello(digest, f"load-{index:02}", batch * len(batches), len(batches), 1, [])
        self._next = 0
        self.served: list[tuple[float, float]] = []

    def join(self) -> None:
        """Says hello, which waits for the others."""
        self._transport.send(self._hello)
        self._session = self._transport.expect(Welcome).session

    def work(self, turn: "Turn", in_flight: int) -> None:
        """Sends batches until the `turn` is over; returns when all are answered."""
        sent: deque[tuple[int, float]] = deque()
        while True:
            if len(sent) < in_flight and turn.goes_on(self._next):
                if self._next == len(self._batches):
                    raise SystemExit(f"all {self._next} batches are sent: give more --steps")
                labels, codes = self._batches[self._next]
                sent.append((self._next, time.perf_counter()))
                self._transport.send(Feature(self._session, self._next, 0, self._batch, labels, codes, None))
                self._next += 1
                continue
            if not sent:
                return
            step, began = sent.popleft()
            self._transport.expect(Gradient, step)
            now = time.perf_counter()
            self.served.append((now, now - began))

    def leave(self) -> None:
        """Says goodbye."""
        self._transport.send(Bye(self._session))
        self._transport.expect(Ack)
        self._transport.close()


class Turn:
    """Some seconds of work. Where devices step together all make the same steps: nobody waits for one that stopped."""

    def __init__(self, seconds: float, together: bool) -> None:
        self._until, self._together = time.perf_counter() + seconds, together
        self._lock, self._furthest, self._last = threading.Lock(), 0, -1

    def goes_on(self, step: int) -> bool:
        """Whether a device is to send its batch `step`, too."""
        over = time.perf_counter() >= self._until
        if not self._together:
            return not over
        with self._lock:
            if over and self._last < 0:
                self._last = self._furthest
            self._furthest = max(self._furthest, step)
            return self._last < 0 or step <= self._last


class Memory:
    """The resident set of process `pid`, each second, while it is asked for."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        #: Seconds of work so far, and MiB.
        self.samples: list[tuple[float, float]] = []
        self._worked_s = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        over, began = threading.Event(), time.monotonic()

        def look() -> None:
            while not over.wait(1.0):
                self.samples.append((self._worked_s + time.monotonic() - began, resident_mib(self._pid)))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._worked_s += time.monotonic() - began

    def slope(self) -> float:
        """MiB a minute, after the first quarter."""
        seconds, mib = np.array(self.samples[len(self.samples) // 4 :]).T
        return float(60 * np.polyfit(seconds, mib, 1)[0])


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def bare(options: argparse.Namespace) -> None:
    """The PyTorch loop, in a process of its own: a turn for every number of seconds on a line of standard input."""
    torch.set_num_threads(options.server_threads)
    held = torch.load(options.bare, weights_only=True)
    _, back = split(build(options.model, tuple(held["input"]), held["classes"], 0), MODELS[options.model].cut)
    back.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(back.parameters(), 0.01, momentum=0.9)
    features, labels = (list(held[name].chunk(BATCHES)) for name in ("features", "labels"))
    features = [feature.contiguous(memory_format=torch.channels_last) for feature in features]

    def step(number: int) -> None:
        # The gradient at the cut is what devices get.
        feature = features[number % BATCHES].clone().requires_grad_()
        loss = cross_entropy(back(feature), labels[number % BATCHES])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    step(0)
    tell(event="ready")
    with open(f"{options.bare}.turns", encoding="ascii") as turns:
        for line in turns:
            begun, cpu_s, steps = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - begun < float(line):
                step(steps)
                steps += 1
            seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
            tell(event="turn", steps_per_s=steps / seconds, cpu_s=cpu_s / steps)


def tell(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def decoded(bundle: str, known: tuple[Arrays, np.ndarray, int], images: int, path: str) -> None:
    """Writes features of `BATCHES` steps of so many images to `path`, with a pipe beside it for the turns."""
    opened = open_bundle(bundle)
    codes, labels, classes = known
    chosen = np.random.default_rng(0).integers(0, len(labels), BATCHES * images)
    tables = opened.tables()
    coded = opened.codec.dequantize({name: array[chosen] for name, array in codes.items()}, tables)
    feature = coded[:, np.argsort(opened.codec.order(coded.shape[1], tables))]
    held = {"features": torch.from_numpy(np.ascontiguousarray(feature)), "labels": torch.from_numpy(labels[chosen])}
    torch.save({**held, "input": list(opened.input_shape), "classes": classes}, path)
    os.mkfifo(f"{path}.turns")


def next_event(events: Iterator[tuple[str, Event]], kind: str) -> Event:
    return next(event for _, event in events if event["event"] == kind)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All turns of both; the record's results."""
    method, rates, work_s = parse(options.codec), [], options.seconds / options.turns
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        bundle, plain = exported(scratch, method, options, MODELS[options.model].cut), os.path.join(scratch, "plain")
        known = front_codes(bundle, options)
        decoded(bundle, known, options.devices * options.batch, plain)
        sequences = [recorded(known, method, options.batch, options.steps, i) for i in range(options.sequences)]
        told = as_flags({
            "listen": "127.0.0.1:0", "devices": options.devices, "gradient_codec": method.gradient, "lr": 0.01,
            "mode": options.mode, "schedule": "constant", "sync_every": "0", "server_threads": options.server_threads,
        })  # fmt: skip
        children, loop = stack.enter_context(Children()), stack.enter_context(Children([sys.executable, *sys.argv]))
        loop.start("bare", ["--bare", plain])
        turns = stack.enter_context(open(f"{plain}.turns", "w", encoding="ascii"))
        plain_events = loop.events()
        next_event(plain_events, "ready")
        children.start("server", ["serve", bundle, "--json", *told])
        events = children.events()
        port, digest = next_event(events, "listening")["port"], open_bundle(bundle).digest
        devices = [
            LoadDevice(i, port, digest, sequences[i % options.sequences], options.batch)
            for i in range(options.devices)
        ]  # fmt: skip
        memory, pid = Memory(children.pid("server")), children.pid("server")
        with ThreadPoolExecutor(options.devices) as pool:
            list(pool.map(LoadDevice.join, devices))
            sys.stderr.write("all have joined\n")
            for number in range(options.turns):
                before, own, begun = usage(pid).cpu_s, usage(os.getpid()).cpu_s, time.perf_counter()
                served = sum(len(device.served) for device in devices)
                turn = Turn(work_s, options.mode == "sync")

                def work(device: LoadDevice, turn: Turn = turn, last: bool = number == options.turns - 1) -> None:
                    device.work(turn, options.in_flight)
                    if last:
                        device.leave()

                with memory.watched():
                    list(pool.map(work, devices))
                seconds = time.perf_counter() - begun
                # Now: after the last turn the server ends.
                server_s, own_s = usage(pid).cpu_s - before, usage(os.getpid()).cpu_s - own
                turns.write(f"{options.bare_seconds}\n")
                turns.flush()
                steps = (sum(len(device.served) for device in devices) - served) / options.devices
                alone = next_event(plain_events, "turn")
                rates.append({
                    "server": steps / seconds, "bare": alone["steps_per_s"], "server_cpu_s": server_s / steps,
                    "bare_cpu_s": alone["cpu_s"], "devices_cpu_s": own_s / steps,
                })  # fmt: skip
                sys.stderr.write(json.dumps(rates[-1]) + "\n")
        next_event(events, "ended")
    latencies = 1e3 * np.array([latency for device in devices for _, latency in device.served])
    counts = [len(device.served) for device in devices]
    middle = {name: statistics.median(rate[name] for rate in rates) for name in rates[0]}
    return {
        "steps_per_s": middle["server"], "images_per_s": middle["server"] * options.devices * options.batch,
        "bare_steps_per_s": middle["bare"], "turns": rates,
        # Of each turn, as a machine's speed may change from one to the next.
        "ratio": statistics.median(rate["server"] / rate["bare"] for rate in rates),
        "cpu_s_of_step": {name: middle[f"{name}_cpu_s"] for name in ("server", "bare", "devices")},
        "latency_ms": {f"p{p}": float(np.percentile(latencies, p)) for p in (50, 95, 99)},
        "served": {"least": min(counts), "most": max(counts)},
        "memory": {"mib": memory.samples[-1][1], "slope_mib_per_min": memory.slope(), "samples": memory.samples},
    }  # fmt: skip


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    found = made["results"]
    latency, served, memory = found["latency_ms"], found["served"], found["memory"]
    return markdown.table(HEADS, [(
        made["mode"], str(made["devices"]), f"{found['steps_per_s']:.2f}", f"{found['images_per_s']:.0f}",
        f"{found['ratio']:.2f}", *(f"{found['cpu_s_of_step'][name]:.2f}" for name in ("server", "bare")),
        *(f"{latency[p]:.0f}" for p in ("p50", "p95", "p99")),
        f"{served['least']} / {served['most']}", f"{memory['mib']:.0f}", f"{memory['slope_mib_per_min']:+.1f}",
    )])  # fmt: skip


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(model="mobilenet_v1", dataset="digits", data=None, codec="sgq:groups=8,bits=5,coding=context+dct")
    arguments.add("sync: one step on all; async: steps of those that are there", mode="sync")
    arguments.add(devices=64)
    arguments.add("images of a device in a step", batch=4)
    arguments.add(in_flight=2, server_threads=1)
    arguments.add("that the server works, in all turns", seconds=120.0)
    arguments.add("of the bare loop, in each turn", bare_seconds=20.0)
    arguments.add(turns=3)
    arguments.add("batches that are recorded", steps=1000)
    arguments.add("of recorded batches; devices share them", sequences=8)
    arguments.add(argparse.SUPPRESS, bare=None)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    if options.mode == "async" and options.turns > 1:
        raise SystemExit("--mode async: who is slow would wait for a quorum of those that have stopped: --turns 1")
    if options.bare:
        bare(options)
        return
    made = {**record.head("torch", "numpy", "grpc"), "machine": describe()}
    made.update({key: getattr(options, key) for key in SHARED}, results=measure(options))
    if options.out:
        record.write(made, options.out)
    sys.stdout.write(table(made) + "\n")


if __name__ == "__main__":
    main()

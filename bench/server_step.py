"""Steps/s of a server, and what a step consists of, with devices that send real features and compute nothing.

``python bench/server_step.py [--devices 1,2,16] [--in-flight 1] [--mode sync] [--out FILE]``: `edgekit serve` in a
process of its own, one thread, and so many null devices in this one. What they send is computed before: their codes are
those of the exported front half, and its weights stay as they are, so the stream of bytes is known from the start. A
null device sends a batch when the answer to an earlier one is there, and reads no gradient.

Every part of a step is timed where it is called, in CPU time of the thread that does it; the parts are those of
`PARTS`, and "rest" is what the process took besides: frames, JSON, gRPC, locks. "wall" is the time from step to step.
``--show FILE`` prints the table of such a file.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from bundles import exported

from edgekit.bundle import open_bundle
from edgekit.cli.serve import serve as serve_command
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.launch.flags import as_flags
from edgekit.launch.processes import Children
from edgekit.line.labels import pack_labels
from edgekit.line.messages import Ack, Bye, Feature, Gradient, Hello, Welcome
from edgekit.line.meter import Meter
from edgekit.machine import describe
from edgekit.measure.methods import Method, parse
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.transport import Grpc

#: Part of a step -> the functions that it is made of, as module, class ("" for none) and name.
PARTS = {
    "unpack": [("edgekit.codecs.entropy.context", "ContextStream", "unpack")],
    "decode": [("edgekit.server.handlers.batch", "", "decode")],
    "watch": [
        ("edgekit.server.handlers.training", "", "look_at"),
        ("edgekit.server.watch", "Watch", "look"),
        ("edgekit.server.watch", "Watch", "learned"),
    ],
    "forward": [("edgekit.server.train", "", "_pass")],
    "backward": [("torch", "Tensor", "backward")],
    "optimiser": [("torch.optim.sgd", "SGD", "step"), ("torch.optim.sgd", "SGD", "zero_grad")],
    "guards": [("edgekit.server.guard", "Guards", name) for name in ("calm", "clip_weights", "clip_parts")],
    "step, other": [("edgekit.server.train", "BackHalf", "step")],
    "gradient": [("edgekit.server.calibrate", "Calibrator", "send")],
    "tables": [("edgekit.codecs.entropy.context", "ContextStream", "update")],
}
#: Those that are coding.
CODING = ("unpack", "decode", "gradient", "tables")
Cell = dict[str, Any]
SHARED = ("model", "cut", "dataset", "codec", "in_flight", "mode", "batch", "joint_batch", "server_threads", "metrics")


class Shares:
    """CPU seconds of every part, from joint step `warm_up` on."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up, self._lock, self._inside = warm_up, threading.Lock(), threading.local()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = -warm_up
        self.begun = (0.0, 0.0)
        self.ended = (0.0, 0.0)
        for part, places in PARTS.items():
            for module, cls, name in places:
                owner = getattr(import_module(module), cls) if cls else import_module(module)
                setattr(owner, name, self._timed(part, getattr(owner, name)))
        back = import_module("edgekit.server.train").BackHalf
        back.step = self._counted(back.step)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            # What a part calls of another one is that one's.
            outer, self._inside.seconds = getattr(self._inside, "seconds", 0.0), 0.0
            start = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                took = time.thread_time() - start
                with self._lock:
                    self.seconds[part] += took - self._inside.seconds
                self._inside.seconds = outer + took

        return timed

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            if self.steps == 0:
                self.seconds = dict.fromkeys(PARTS, 0.0)
                self.begun = (time.perf_counter(), time.process_time())
            self.ended = (time.perf_counter(), time.process_time())
            self.steps += 1
            return step(*given, **named)

        return counted

    def told(self) -> dict[str, Any]:
        """Milliseconds a step: of each part, of the rest of the process's CPU time, and by the clock."""
        # The last step begins at the end of what is measured.
        steps = self.steps - 1
        wall, cpu = (1e3 * (end - begin) / steps for begin, end in zip(self.begun, self.ended, strict=True))
        parts = {part: 1e3 * seconds / (steps + 1) for part, seconds in self.seconds.items()}
        return {"steps": steps, "wall_ms": wall, "cpu_ms": cpu, "ms": {**parts, "rest": cpu - sum(parts.values())}}


def serve(options: argparse.Namespace, flags: list[str]) -> None:
    """`edgekit serve`, timed; tells its shares at the end."""
    shares = Shares(options.warm_up)
    serve_command.main(flags, standalone_mode=False)
    sys.stdout.write(json.dumps({"event": "shares", **shares.told()}) + "\n")


class NullDevice:
    """One device: `share` numbers its images, whose codes and labels are given."""

    def __init__(self, index: int, port: int, digest: str, codes: Arrays, labels: np.ndarray) -> None:
        self.codes, self.labels = codes, labels
        self._transport = Grpc(f"127.0.0.1:{port}", Meter())
        self._rng = np.random.default_rng(index)
        self._hello = Hello(digest, f"null-{index:02}", len(labels), 1, 1000, [])
        self._batches: list[tuple[int, bytes, bytes]] = []

    def join(self, batch: int) -> None:
        """Says hello, which waits for the others."""
        self._transport.send(self._hello._replace(steps=-(-len(self.labels) // batch)))
        self._welcome = self._transport.expect(Welcome)

    def prepare(self, method: Method, steps: int, classes: int) -> None:
        """Codes the batches of `steps` steps, one after another, as both ends' streams will have learned by then."""
        stream = feature_codec(method.codec, method.config).stream()
        while len(self._batches) < steps:
            for chosen in np.array_split(self._rng.permutation(len(self.labels)), self._welcome.steps):
                codes = {name: array[chosen] for name, array in self.codes.items()}
                packed = pack_labels(self.labels[chosen], classes)
                self._batches.append((len(chosen), packed, stream.pack(codes, chosen)))
                stream.update(codes, chosen)
        del self._batches[steps:]

    def train(self, in_flight: int) -> None:
        """Sends them all."""
        session, ends = self._welcome.session, len(self._batches)
        for step in range(ends + in_flight - 1):
            if step < ends:
                n, labels, payload = self._batches[step]
                self._transport.send(Feature(session, step, 0, n, labels, payload, None))
            if step >= in_flight - 1:
                self._transport.expect(Gradient, step - in_flight + 1)
        self._transport.send(Bye(session))
        self._transport.expect(Ack)

    def close(self) -> None:
        self._transport.close()


def front_codes(bundle: str, options: argparse.Namespace) -> tuple[Arrays, np.ndarray, int]:
    """Codes of all training images by the exported front half, labels, and the number of classes."""
    opened = open_bundle(bundle)
    data = images.fit(registry.load(options.dataset, options.data, None, 0), opened.input_shape)
    front = FrontHalf(opened, "onnxruntime", 1)
    found = [
        front.encode(front.normalise(data.train_images[at : at + options.batch]))
        for at in range(0, len(data.train_labels), options.batch)
    ]
    codes = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return codes, data.train_labels, opened.classes


def cell(
    bundle: str, method: Method, known: tuple[Arrays, np.ndarray, int], devices: int, options: argparse.Namespace
) -> Cell:
    """One run of the server."""
    codes, labels, classes = known
    told = as_flags({
        "listen": "127.0.0.1:0", "devices": devices, "gradient_codec": method.gradient, "mode": options.mode,
        "joint_batch": options.joint_batch or None, "schedule": "constant", "lr": options.lr, "sync_every": "0",
        "server_threads": options.server_threads, "metrics": "127.0.0.1:0" if options.metrics else None,
    })  # fmt: skip
    role = [sys.executable, __file__, "--serve", "--warm-up", str(options.warm_up)]
    with Children(role) as children:
        children.start("server", ["--", bundle, "--json", *told])
        events = children.events()
        port = next(event["port"] for _, event in events if event["event"] == "listening")
        shares = np.array_split(np.arange(len(labels)), devices)
        digest = open_bundle(bundle).digest
        clients = [
            NullDevice(i, port, digest, {name: array[share] for name, array in codes.items()}, labels[share])
            for i, share in enumerate(shares)
        ]
        with ThreadPoolExecutor(devices) as pool:
            list(pool.map(lambda device: device.join(options.batch), clients))
            for device in clients:
                device.prepare(method, options.warm_up + options.steps, classes)
            list(pool.map(lambda device: device.train(options.in_flight), clients))
        for device in clients:
            device.close()
        shares_told = next(event for _, event in events if event["event"] == "shares")
    return {"devices": devices, **{key: value for key, value in shares_told.items() if key != "event"}}


def results(cells: list[Cell]) -> list[dict[str, Any]]:
    """A row for each number of devices: medians over its repeats. "coding" is a share of the step's CPU time."""
    rows = []
    for devices in sorted({cell["devices"] for cell in cells}):
        same = [cell for cell in cells if cell["devices"] == devices]
        rates = [1e3 / cell["wall_ms"] for cell in same]
        rows.append({
            "devices": devices,
            "steps_per_s": {"median": statistics.median(rates), "low": min(rates), "high": max(rates)},
            **{key: statistics.median(cell[key] for cell in same) for key in ("wall_ms", "cpu_ms")},
            "coding": statistics.median(sum(cell["ms"][part] for part in CODING) / cell["cpu_ms"] for cell in same),
            "ms": {part: statistics.median(cell["ms"][part] for cell in same) for part in same[0]["ms"]},
        })  # fmt: skip
    return rows


def table(made: dict[str, Any]) -> str:
    """What a record's steps consist of."""
    rows = made["results"]
    lines = [(part, *(f"{row['ms'][part]:.2f}" for row in rows)) for part in rows[0]["ms"]]
    lines += [(name, *(f"{row[key]:.2f}" for row in rows)) for name, key in (("CPU", "cpu_ms"), ("wall", "wall_ms"))]
    lines.append(("coding / CPU", *(f"{row['coding']:.3f}" for row in rows)))
    lines.append(("steps/s", *(f"{row['steps_per_s']['median']:.1f}" for row in rows)))
    heads = [f"{row['devices']} device{'s' * (row['devices'] > 1)}" for row in rows]
    return markdown.table(("ms a step", *heads), lines, "---:")


def measure(options: argparse.Namespace) -> None:
    """All repeats, and the record."""
    method = parse(options.codec)
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = exported(scratch, method, options)
        known = front_codes(bundle, options)
        for _ in range(options.repeats):
            for devices in map(int, options.devices.split(",")):
                cells.append(cell(bundle, method, known, devices, options))
                sys.stderr.write(f"{devices} devices: {1e3 / cells[-1]['wall_ms']:.2f} steps/s\n")
    made = {
        **record.head("torch", "numpy"), "machine": describe(),
        **{key: getattr(options, key) for key in SHARED}, "results": results(cells), "cells": cells,
    }  # fmt: skip
    record.finish(made, options.out)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(model="vgg11_thin", cut="features.10", dataset="digits", data=None)
    arguments.add(codec="sgq:groups=8,bits=5,coding=context+dct", devices="1,2,16", in_flight=1, mode="sync", batch=32)
    arguments.add("images of a joint step (default: the server's)", joint_batch=0)
    arguments.add("the server serves --metrics too, and counts what it needs for them", metrics=False)
    arguments.add(server_threads=1, steps=30, warm_up=5, lr=0.01, repeats=3)
    arguments.add(argparse.SUPPRESS, serve=False)
    arguments.add_argument("flags", nargs="*", help=argparse.SUPPRESS)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    if options.serve:
        serve(options, options.flags)
    else:
        measure(options)


if __name__ == "__main__":
    main()

"""Measure: how fast this device trains, or encodes, once it is warm.

::

    |-- warm-up --|---------------- measured ----------------|-- drained --|
    batch 0 .. w-1   batches w .. until `seconds` have passed   those still in flight
"""

import itertools
import os
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import numpy as np

from edgekit import machine
from edgekit.errors import UsageError
from edgekit.runtime.energy import Energy
from edgekit.runtime.front import Front
from edgekit.runtime.loop import Device, Event
from edgekit.runtime.session import Images

#: Fewest batches that are measured, however long they take.
LEAST = 2
#: Epochs that the server is told are planned: more than are measured, for the last of them are trained otherwise.
PLANNED = 1000000
#: Activities of the meter, by the names they have in a record.
ACTIVITIES = {"compute": "device_compute", "encode": "encode", "network": "network", "server": "server"}


class Span(NamedTuple):
    """How long is measured: at least `seconds`, after `warm_up` batches (fewer when they take as long as that)."""

    seconds: float
    warm_up: int

    def check(self) -> None:
        """UsageError unless there is something to measure."""
        if not 0 < self.seconds < float("inf") or self.warm_up < 1:
            told = "measuring {} s after {} batches: expected some seconds, and at least one batch to warm up"
            raise UsageError(told.format(*self))


def measure_training(device: Device, train: Images, span: Span, on_event: Callable[[Event], None]) -> None:
    """Trains on `train` over and over for `span`, then emits the "measured" event: see docs/measure.md for its fields.

    "measuring" is emitted when the warm-up is over, "enough" when the measured time is. The server's back half and this
    front half do learn.
    """
    span.check()
    steps = device.steps_per_epoch(train)
    batch = len(train.labels) / steps
    device.session.hello(len(train.labels), steps, PLANNED)
    device.session.save(device.session.welcome.save)
    enough = False

    def batches() -> Iterator[np.ndarray]:
        while True:
            for chosen in device.batches(len(train.labels), steps):
                if enough:
                    return
                yield chosen

    energy = Energy()
    latencies: List[float] = []
    begun = time.perf_counter()
    start = _Reading(device)
    warm = False
    done = 0
    end = start
    joules = None
    for sent, _ in device.session.steps(train, batches()):
        if enough:
            continue
        now = time.perf_counter()
        done += 1
        if not warm:
            if done >= span.warm_up or now - begun >= span.seconds:
                warm, done = True, 0
                on_event({"event": "measuring"})
                energy.start()
                start = _Reading(device)
            continue
        latencies.append(now - sent.began)
        if done >= LEAST and now - start.time >= span.seconds:
            enough = True
            joules = energy.stop()
            end = _Reading(device)
            on_event({"event": "enough"})
    device.session.bye()
    images = end.images - start.images
    seconds = end.time - start.time
    on_event(
        {
            "event": "measured",
            "steps": done,
            "images": images,
            "seconds": seconds,
            "images_per_s": images / seconds,
            "latency_s": percentiles(latencies),
            "bytes_per_image": {
                "up": _bytes(start, end, "up", "feature", batch),
                "down": _bytes(start, end, "down", "gradient", batch),
            },
            "seconds_per_image": {
                name: (end.seconds.get(key, 0.0) - start.seconds.get(key, 0.0)) / images
                for key, name in ACTIVITIES.items()
            },
            "staleness": (end.staleness - start.staleness) / done,
            "cpu_seconds_per_image": (end.cpu_s - start.cpu_s) / images,
            "peak_memory_bytes": machine.usage(os.getpid()).peak_bytes,
            "joules_per_image": None if joules is None else joules / images,
            "machine": machine.describe(),
        }
    )


def measure_encoding(
    front: Front, images: np.ndarray, batch: int, span: Span, on_event: Callable[[Event], None]
) -> None:
    """Encodes `images` (n,C,H,W) f32, normalised, over and over for `span` as deployed, without a server; emits the
    "encoded" event."""
    span.check()
    stream = front.codec.stream()
    energy = Energy()
    latencies: List[float] = []
    n_bytes = 0
    start = begun = time.perf_counter()
    warm = False
    for at in itertools.cycle(range(0, max(len(images) - batch, 0) + 1, batch)):
        now = time.perf_counter()
        if not warm and (len(latencies) >= span.warm_up or now - begun >= span.seconds):
            warm, latencies, n_bytes = True, [], 0
            energy.start()
            start = now = time.perf_counter()
        if warm and len(latencies) >= LEAST and now - start >= span.seconds:
            break
        began = time.perf_counter()
        n_bytes += len(stream.pack(front.encode(images[at : at + batch])))
        latencies.append(time.perf_counter() - began)
    elapsed = time.perf_counter() - start
    joules = energy.stop()
    count = len(latencies) * min(batch, len(images))
    on_event(
        {
            "event": "encoded",
            "images": count,
            "seconds": elapsed,
            "images_per_s": count / elapsed,
            "latency_s": percentiles(latencies),
            "payload_bytes_per_image": n_bytes / count,
            "joules_per_image": None if joules is None else joules / count,
        }
    )


def percentiles(seconds: List[float]) -> Dict[str, float]:
    """Median, 95th and 99th percentile of `seconds`, interpolated."""
    return {"p{}".format(p): float(np.percentile(seconds, p)) for p in (50, 95, 99)}


class _Reading:
    """What the meters show at one moment."""

    def __init__(self, device: Device) -> None:
        self.bytes = dict(device.meter.bytes)
        self.frames = dict(device.meter.frames)
        self.seconds = dict(device.meter.seconds)
        self.staleness = device.session.staleness
        self.images = device.session.images
        self.cpu_s = machine.usage(os.getpid()).cpu_s
        self.time = time.perf_counter()


def _bytes(start: _Reading, end: _Reading, way: str, kind: str, batch: float) -> Dict[str, Any]:
    """Bytes per image of every kind of message that went `way`, one of `kind` being sent for each batch."""
    images = (end.frames[way, kind] - start.frames.get((way, kind), 0)) * batch
    return {
        each: (n - start.bytes.get((direction, each), 0)) / images
        for (direction, each), n in sorted(end.bytes.items())
        if direction == way and n > start.bytes.get((direction, each), 0)
    }

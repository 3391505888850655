"""Scaling: how many images/s a fleet of devices trains, by the number of its devices, each time by a whole training.

::

    for each repeat and method: one export
    for each repeat, line, mode and number of devices: the methods in turn
        edgekit.launch.train: server, line, K devices --events--> images/s, bytes, accuracy
        cpu_time.py: processor seconds of each process ---------> how busy the server was
        throttle.py: the devices' share of a core while they train, where boards slower than one are emulated
"""

import contextlib
import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.errors import EdgekitError, UsageError
from edgekit.export.settings import BoardSettings, Coding, NamedData, NamedNetwork
from edgekit.launch.settings import Run, Server, Training
from edgekit.launch.train import check, export_run, train_bundle
from edgekit.line.meter import TRAINING_KINDS
from edgekit.link.link import Link
from edgekit.measure.cpu_time import MACHINE, CpuTime
from edgekit.measure.methods import Method
from edgekit.measure.throttle import Throttle

Cell = dict[str, Any]
Event = dict[str, Any]
#: Name of this process among those whose processor time is read.
HERE = "measuring"
#: Parts of a device's time, as the "summary" event of a training has them.
PARTS = ("device_compute", "encode", "network", "server", "round")


class Plan(NamedTuple):
    """What is to be measured. A link of None is loopback, without emulation."""

    network: NamedNetwork
    #: With a limit that makes `epochs` passes over it the number of images asked for.
    data: NamedData
    board: BoardSettings
    devices: tuple[int, ...]
    methods: tuple[Method, ...]
    links: dict[str, Link | None]
    modes: tuple[str, ...]
    repeats: int
    epochs: int
    batch: int
    in_flight: int
    #: What the trainings have in common; mode and gradient codec are each one's own.
    server: Server
    #: The most that a device gets of a core; None: all that the machine gives it.
    share: float | None
    seed: int

    def check(self) -> None:
        """Raises UsageError now for what a training would refuse, perhaps only after hours."""
        for devices, method, link, mode in itertools.product(self.devices, self.methods, self.links, self.modes):
            check(self.training(devices, method, link, mode, repeat=0))
        if self.share is not None:
            Throttle(self.share)

    def training(self, devices: int, method: Method, link: str, mode: str, repeat: int) -> Run:
        """The settings of one training."""
        coding = Coding(feature_codec(method.codec, method.config))
        training = Training(
            devices=devices, epochs=self.epochs, batch=self.batch, in_flight=self.in_flight,
            # A test takes time that is not training's.
            evaluate_every=self.epochs, link=None if self.links[link] is None else link,
        )  # fmt: skip
        fleet = self.server.fleet._replace(mode=mode)
        server = self.server._replace(fleet=fleet, gradient_codec=method.gradient)
        return Run(self.network, self.data, coding, self.board, training, server, self.seed + repeat)

    def cells(self) -> Iterator[tuple[int, str, str, int, Method]]:
        """(repeat, link, mode, devices, method) in the order of measuring, methods in turn: A B A B."""
        return itertools.product(range(self.repeats), self.links, self.modes, self.devices, self.methods)


def passes(wanted: int, images: int) -> tuple[int, int]:
    """(epochs, images of each) that come nearest to `wanted` images of the `images` that there are; UsageError.

    >>> passes(8192, 1438)
    (6, 1438)
    >>> passes(8192, 50000)
    (1, 8192)
    """
    if wanted < 2:
        raise UsageError(f"--images {wanted}: expected at least 2")
    if wanted < images:
        return 1, wanted
    return round(wanted / images), images


def cores() -> int:
    """Processors that processes started here may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    plan: Plan, on_start: Callable[[str], None], on_event: Callable[[Event], None], on_cell: Callable[[Cell], None]
) -> None:
    """Measures all of `plan`. `on_start` gets each cell's name before it, `on_event` the events of its training, and
    `on_cell` the cell. An error names the cell it came in."""
    for repeat, cells in itertools.groupby(plan.cells(), lambda cell: cell[0]):
        with tempfile.TemporaryDirectory() as folder:
            bundles: dict[str, Bundle] = {}
            for _, link, mode, devices, method in cells:
                name = f"{method.name} over {link}, {mode}, {devices} device{'' if devices == 1 else 's'}"
                on_start(name)
                training = plan.training(devices, method, link, mode, repeat)
                try:
                    if method.name not in bundles:
                        bundles[method.name] = export_run(training, os.path.join(folder, f"bundle-{len(bundles)}"))
                    found = cell(training, bundles[method.name], plan.share, on_event)
                except EdgekitError as error:
                    error.args = (f"{name}: {error}",)
                    raise
                on_cell(
                    {"codec": method.name, "link": link, "mode": mode, "devices": devices, "repeat": repeat, **found}
                )


def cell(training: Run, bundle: Bundle, share: float | None, on_event: Callable[[Event], None]) -> Cell:
    """One cell: a whole `training`, whose `bundle` is exported, with `share` of a core for each device.

    Its time is that from the moment when the server let the devices begin to the end of the last one's training; what
    comes before, the start of the processes, and the test behind it are left out.
    """
    processes: dict[str, subprocess.Popen[str]] = {}
    begun: list[float] = []
    done: list[Event] = []
    with contextlib.ExitStack() as stack:
        cpu = stack.enter_context(CpuTime())
        cpu.add(HERE, os.getpid())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        throttle = stack.enter_context(Throttle(share)) if share else None

        def on_process(name: str, process: "subprocess.Popen[str]") -> None:
            processes[name] = process
            cpu.add(name, process.pid)

        def see(event: Event) -> None:
            if event["event"] == "connected":
                begun.append(time.monotonic())
                if throttle:
                    throttle.hold(processes[event["process"]])
            elif event["event"] == "testing" and throttle:
                throttle.release(processes[event["process"]])
            elif event["event"] == "done":
                done.append(event)
            on_event(event)

        summary = train_bundle(training, bundle, folder, on_event=see, on_process=on_process)
    seconds = max(event["train_s"] for event in done)
    start = min(begun)
    spent = {name: cpu.spent(name, start, start + seconds) for name in (*processes, HERE, MACHINE)}
    return {
        **_trained(summary, seconds),
        **_spent(spent, seconds, summary["images"], training.training.devices),
    }


def _trained(summary: Event, seconds: float) -> Cell:
    """What a training came to: rates, bytes, accuracy, and the parts of a device's time."""
    images, devices = summary["images"], len(summary["images_by_device"])
    counts = {tuple(key.split(".", 1)): n for key, n in summary["bytes_by_kind"].items()}
    return {
        "images": images,
        "seconds": seconds,
        "images_per_s": images / seconds,
        "device_rates": summary["images_per_s"],
        "bytes_per_image": {
            way: {kind: n / images for (at, kind), n in counts.items() if at == way and kind in TRAINING_KINDS}
            for way in ("up", "down")
        },
        "accuracy": summary["accuracy"],
        "balanced_accuracy": summary["balanced_accuracy"],
        "loss": summary["loss"],
        "test_loss": summary["test_loss"],
        "collapsed": summary["collapsed"],
        "seconds_per_image": {part: summary["seconds"].get(part, 0.0) / (images / devices) for part in PARTS},
        "staleness": summary["staleness"],
        "fleet": summary["fleet"],
        "quarantined": summary["quarantined"],
    }


def _spent(spent: dict[str, float], seconds: float, images: int, devices: int) -> Cell:
    """How busy the processes were: `spent` is processor seconds by process, and of the whole machine."""
    by_side = {
        "device": sum(s for name, s in spent.items() if name.startswith("device-")),
        "server": spent["server"],
        "link": spent.get("link", 0.0),
        "measuring": spent[HERE],
    }
    others = max(spent[MACHINE] - sum(by_side.values()), 0.0)
    return {
        "cpu_seconds_per_image": {side: s / images for side, s in by_side.items()},
        # Cores: 1.0 is one core all the time; "device" is the mean over the devices.
        "busy": {**{side: s / seconds for side, s in by_side.items()}, "device": by_side["device"] / seconds / devices},
        "others_cpu": others / seconds / (os.cpu_count() or 1),
    }

"""Cells: what real processes measure, one cell after another, the methods in turn within every link.

::

    device process (core 0) --- emulated link, in this process --- server process (core 1), one for every method
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgekit import machine
from edgekit.errors import ChildFailed
from edgekit.link import Link
from edgekit.link_emulator import LinkEmulator
from edgekit.measure.methods import Method
from edgekit.processes import Children

Cell = dict[str, Any]


class Plan(NamedTuple):
    """What is measured. `bundles` are paths by the methods' names; a link of None is none, straight over loopback."""

    methods: tuple[Method, ...]
    bundles: dict[str, str]
    links: dict[str, Link | None]
    in_flight: tuple[int, ...]
    repeats: int
    seconds: float
    warm_up: int
    batch: int
    #: Arguments of `edgekit run` and of `edgekit serve` that all cells share.
    device_flags: tuple[str, ...]
    server_flags: tuple[str, ...]
    #: Processors of the device and of everything else; None leaves that to the system.
    cores: tuple[tuple[int, ...], tuple[int, ...]] | None

    def cells(self) -> Iterator[tuple[int, str, int, Method]]:
        """Repeat, link, batches in flight and method, in the order they are measured: A B A B."""
        for repeat in range(self.repeats):
            for link in self.links:
                for depth in self.in_flight:
                    for method in self.methods:
                        yield repeat, link, depth, method


def two_sides() -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """One processor for the device and the others for the rest; None where there is only one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    return ((first,), tuple(others)) if others else None


class Bench:
    """The servers of a plan, and its cells. A context manager: it leaves no process behind."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._children = Children()
        self._events = self._children.events()
        self._ports: dict[str, int] = {}
        self._count = 0
        self._exit = contextlib.ExitStack()
        #: What the machines told of themselves last.
        self.machines: dict[str, Any] = {"server": machine.describe()}

    def __enter__(self) -> "Bench":
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._children)
            if self.plan.cores is not None:
                # The emulated link runs in this process: beside the server, away from the device.
                stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
                os.sched_setaffinity(0, self.plan.cores[1])
            for method in self.plan.methods:
                self._serve(method)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def encoding(self, method: Method, repeat: int) -> Cell:
        """What the deployed graph and packing alone take, without server and link."""
        device = self._device(method, [])
        measured = self._wait(device, "encoded")
        self._ended(device)
        return {
            "codec": method.name,
            "repeat": repeat,
            **{key: value for key, value in measured.items() if key not in ("event", "images", "seconds")},
        }

    def cell(self, repeat: int, link: str, depth: int, method: Method) -> Cell:
        """One cell: a new device process that trains against the method's server over a new link."""
        emulated = self.plan.links[link]
        target = f"127.0.0.1:{self._ports[method.name]}"
        with contextlib.ExitStack() as stack:
            address = target
            if emulated is not None:
                address = f"127.0.0.1:{stack.enter_context(LinkEmulator(emulated, target)).port}"
            device = self._device(method, ["--server", address, "--in-flight", str(depth)])
            self._wait(device, "measuring")
            start = self._usage(method)
            measured = self._wait(device, "measured")
            end = self._usage(method)
            self._ended(device)
        self.machines["device"] = measured.pop("machine")
        images = measured["images"]
        own = {"device": measured["cpu_seconds_per_image"]}
        own |= {name: (end[name] - start[name]) / images for name in ("server", "link")}
        elapsed = end["time"] - start["time"]
        others = end["busy"] - start["busy"] - sum(own.values()) * images
        return {
            "codec": method.name,
            "link": link,
            "in_flight": depth,
            "repeat": repeat,
            **{key: value for key, value in measured.items() if key != "event"},
            "cpu_seconds_per_image": own,
            "peak_memory_bytes": {
                "device": measured["peak_memory_bytes"],
                "server": machine.usage(self._children.pid(f"server-{method.name}")).peak_bytes,
            },
            "others_cpu": max(others / elapsed / (os.cpu_count() or 1), 0.0),
        }

    def _serve(self, method: Method) -> None:
        name = f"server-{method.name}"
        flags = ["--listen", "127.0.0.1:0", "--json", "--schedule", "constant", "--calibrate", method.gradient]
        cores = self.plan.cores[1] if self.plan.cores else None
        bundle = self.plan.bundles[method.name]
        self._children.start(name, ["serve", bundle, *flags, *self.plan.server_flags], cores)
        self._ports[method.name] = self._wait(name, "listening")["port"]

    def _device(self, method: Method, flags: list[str]) -> str:
        self._count += 1
        name = f"device-{self._count}"
        plan = self.plan
        span = ["--measure", str(plan.seconds), "--warm-up", str(plan.warm_up), "--batch", str(plan.batch), "--json"]
        cores = plan.cores[0] if plan.cores else None
        self._children.start(name, ["run", plan.bundles[method.name], *span, *flags, *plan.device_flags], cores)
        return name

    def _wait(self, child: str, kind: str) -> dict[str, Any]:
        """The next event of that kind from `child`; those of others pass."""
        for name, event in self._events:
            if name == child and event["event"] == kind:
                return event
        raise ChildFailed(f"{child} ended without its '{kind}' event")

    def _ended(self, child: str) -> None:
        """Waits for the end of `child`: its last work must not disturb the next cell."""
        os.waitid(os.P_PID, self._children.pid(child), os.WEXITED | os.WNOWAIT)

    def _usage(self, method: Method) -> dict[str, float]:
        return {
            "server": machine.usage(self._children.pid(f"server-{method.name}")).cpu_s,
            "link": machine.usage(os.getpid()).cpu_s,
            "busy": machine.busy_s(),
            "time": time.perf_counter(),
        }


def run(plan: Plan, on_cell: Callable[[Cell], None]) -> dict[str, Any]:
    """Measures all of `plan`; the machines it ran on. `on_cell` gets every cell; those of encoding have no "link"."""
    with Bench(plan) as bench:
        for repeat in range(plan.repeats):
            for method in plan.methods:
                on_cell(bench.encoding(method, repeat))
        for repeat, link, depth, method in plan.cells():
            on_cell(bench.cell(repeat, link, depth, method))
        return bench.machines

"""Cells: each is one measurement of a method over a link by real processes; within a link the methods take turns.

::

    device process (core 0) --- emulated link, in this process --- server process (core 1), one for every method
    (or on a board, through ssh)
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from edgekit import machine
from edgekit.codecs.registry import feature_codec
from edgekit.errors import ChildFailed, EdgekitError, UsageError
from edgekit.launch.processes import Children
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import Link
from edgekit.measure.board import Board
from edgekit.measure.methods import Method
from edgekit.runtime.measure import Span

Cell = dict[str, Any]


class Plan(NamedTuple):
    """What is to be measured. `bundles`: name of a method -> path. A link of None is loopback, without emulation."""

    methods: tuple[Method, ...]
    bundles: dict[str, str]
    links: dict[str, Link | None]
    in_flight: tuple[int, ...]
    repeats: int
    seconds: float
    warm_up: int
    batch: int
    #: Arguments of `edgekit run` and of `edgekit serve` that all cells share.
    device_flags: Sequence[str]
    server_flags: Sequence[str]
    #: Processor cores of the device, and of everything else; None leaves that to the system.
    cores: tuple[tuple[int, ...], tuple[int, ...]] | None

    def check(self) -> None:
        """Raises UsageError now for what a process would refuse only after hours."""
        Span(self.seconds, self.warm_up).check()
        if self.batch < 2:
            raise UsageError(f"batches of {self.batch}: expected at least 2 images")
        for method in self.methods:
            most = feature_codec(method.codec, method.config).stream().in_flight
            if most is not None and max(self.in_flight) > most:
                raise UsageError(f"{max(self.in_flight)} batches in flight: {method.name} takes at most {most}")

    def cells(self) -> Iterator[tuple[int, str, int, Method]]:
        """(repeat, link, batches in flight, method) in the order of measuring, methods in turn: A B A B."""
        return itertools.product(range(self.repeats), self.links, self.in_flight, self.methods)


def two_sides() -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """One core for the device and the others for the rest; None when there is only one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    return ((first,), tuple(others)) if others else None


class Bench:
    """Measures the cells of a plan: starts its servers at once, and a device for each cell, as `children`."""

    def __init__(self, plan: Plan, machines: dict[str, Any], children: Children, board: Board | None) -> None:
        self.plan = plan
        self._board = board
        self._children = children
        self._events = children.events()
        self._numbers = itertools.count(1)
        self._machines = machines
        machines["server"] = machine.describe()
        self._ports = {method.name: self._serve(method) for method in plan.methods}

    def encoding(self, method: Method, repeat: int) -> Cell:
        """The cell of encoding alone: the deployed graph and packing, without server and link."""
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
        port = self._ports[method.name]
        with contextlib.ExitStack() as stack:
            if emulated is not None:
                port = stack.enter_context(LinkEmulator(emulated, f"127.0.0.1:{port}")).port
            if self._board is not None:
                port = stack.enter_context(self._board.tunnel(port))
            device = self._device(method, ["--server", f"127.0.0.1:{port}", "--in-flight", str(depth)])
            provider = self._wait(device, "opened")["provider"]
            self._wait(device, "measuring")
            machine.forget_peak(self._children.pid(f"server-{method.name}"))
            start = self._usage(method)
            self._wait(device, "enough")
            end = self._usage(method)
            measured = self._wait(device, "measured")
            self._ended(device)
        self._machines["device"] = measured.pop("machine")
        images = measured["images"]
        own = {"device": measured["cpu_seconds_per_image"]}
        own |= {name: (end[name] - start[name]) / images for name in ("server", "link")}
        elapsed = end["time"] - start["time"]
        here = sum(seconds for name, seconds in own.items() if name != "device" or self._board is None)
        others = end["busy"] - start["busy"] - here * images
        return {
            "codec": method.name,
            "link": link,
            "in_flight": depth,
            "repeat": repeat,
            "provider": provider,
            **{key: value for key, value in measured.items() if key != "event"},
            "cpu_seconds_per_image": own,
            "peak_memory_bytes": {"device": measured["peak_memory_bytes"], "server": end["peak"]},
            "others_cpu": max(others / elapsed / (os.cpu_count() or 1), 0.0),
        }

    def _serve(self, method: Method) -> int:
        """The port of a new server for `method`."""
        name = f"server-{method.name}"
        flags = ["--listen", "127.0.0.1:0", "--json", "--schedule", "constant", "--gradient-codec", method.gradient]
        cores = self.plan.cores[1] if self.plan.cores else None
        bundle = self.plan.bundles[method.name]
        self._children.start(name, ["serve", bundle, *flags, *self.plan.server_flags], cores)
        return int(self._wait(name, "listening")["port"])

    def _device(self, method: Method, flags: list[str]) -> str:
        name = f"device-{next(self._numbers)}"
        plan = self.plan
        span = ["--measure", str(plan.seconds), "--warm-up", str(plan.warm_up), "--batch", str(plan.batch), "--json"]
        words = [*span, *flags, *plan.device_flags]
        bundle = plan.bundles[method.name]
        if self._board is not None:
            self._children.start(name, [], command=self._board.command(bundle, words))
        else:
            self._children.start(name, ["run", bundle, *words], plan.cores[0] if plan.cores else None)
        return name

    def _wait(self, child: str, kind: str) -> dict[str, Any]:
        """The next event of `kind` from `child`; all others are dropped."""
        for name, event in self._events:
            if name == child and event["event"] == kind:
                return event
        raise ChildFailed(f"{child} ended without its '{kind}' event")

    def _ended(self, child: str) -> None:
        """Waits for the end of `child`, so that its last work does not disturb the next cell."""
        os.waitid(os.P_PID, self._children.pid(child), os.WEXITED | os.WNOWAIT)

    def _usage(self, method: Method) -> dict[str, Any]:
        server = machine.usage(self._children.pid(f"server-{method.name}"))
        return {
            "server": server.cpu_s,
            "peak": server.peak_bytes,
            "link": machine.usage(os.getpid()).cpu_s,
            "busy": machine.busy_s(),
            "time": time.perf_counter(),
        }


@contextlib.contextmanager
def bench(plan: Plan, machines: dict[str, Any], board: Board | None = None) -> Iterator[Bench]:
    """The bench of `plan`; it leaves no process behind. What the machines tell of themselves is added to `machines`."""
    with Children() as children, contextlib.ExitStack() as stack:
        if plan.cores is not None:
            # The emulated link runs in this process: beside the server, away from the device.
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, plan.cores[1])
        yield Bench(plan, machines, children, board)


def run(
    plan: Plan,
    machines: dict[str, Any],
    on_start: Callable[[str], None],
    on_cell: Callable[[Cell], None],
    board: Board | None = None,
) -> None:
    """Measures all of `plan`, and adds what the machines told of themselves to `machines`.

    With `board`, which has the plan's bundles, device processes run there.

    `on_start` gets every cell's name before it, `on_cell` the cell; those of encoding have no "link". An error names
    the cell it came in.
    """
    with bench(plan, machines, board) as ready:
        jobs: list[tuple[str, Callable[[], Cell]]] = [
            (f"{method.name}, encoding alone", partial(ready.encoding, method, repeat))
            for repeat in range(plan.repeats)
            for method in plan.methods
        ]
        jobs += [
            (f"{method.name} over {link}, {depth} in flight", partial(ready.cell, repeat, link, depth, method))
            for repeat, link, depth, method in plan.cells()
        ]
        for name, measure in jobs:
            on_start(name)
            try:
                cell = measure()
            except EdgekitError as error:
                error.args = (f"{name}: {error}",)
                raise
            on_cell(cell)

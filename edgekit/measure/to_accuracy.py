"""Time to an accuracy: a whole training for each method, and what its device came to after each test.

::

    for each method: one export
        computed: one training without a line; line_time.py adds each line's seconds later
        measured: a training over each line
            edgekit.launch.train: server, line, device --"epoch"--> images, bytes, seconds, accuracy
"""

import contextlib
import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.errors import EdgekitError, UsageError
from edgekit.export.settings import BoardSettings, Coding, NamedData, NamedNetwork
from edgekit.launch.settings import Run, Server, Training
from edgekit.launch.train import check, export_run, train_bundle
from edgekit.link.link import Link
from edgekit.measure.cpu_time import MACHINE, CpuTime
from edgekit.measure.line_time import check_computable
from edgekit.measure.methods import Method

Row = dict[str, Any]
Event = dict[str, Any]
#: A training: the name of its method, and its line; None where it had none.
Key = tuple[str, str | None]
#: Name of this process among those whose processor time is read.
HERE = "measuring"
#: What a device's seconds are called in a record -> in its events.
PARTS = {"device_compute": "compute", "encode": "encode", "network": "network", "server": "server"}


class Plan(NamedTuple):
    """What is to be trained. A link of None is loopback, without emulation."""

    network: NamedNetwork
    data: NamedData
    board: BoardSettings
    methods: tuple[Method, ...]
    links: dict[str, Link | None]
    #: Whether trainings run over the lines; else each method is trained once, without a line.
    measured: bool
    epochs: int
    evaluate_every: int
    augment: str | None
    batch: int
    in_flight: int
    #: What the trainings have in common; the gradient codec is each one's own.
    server: Server
    seed: int

    def check(self) -> None:
        """Raises UsageError now for what a training would refuse, perhaps only after hours."""
        if not self.measured:
            check_computable(self.links)
            if self.in_flight > 1:
                raise UsageError(
                    f"--in-flight {self.in_flight}: seconds are computed for one batch in flight, more have to be "
                    "measured: --line measured"
                )
        for method in self.methods:
            most = feature_codec(method.codec, method.config).stream().in_flight
            if most is not None and self.in_flight > most:
                raise UsageError(f"{self.in_flight} batches in flight: {method.name} takes at most {most}")
        for method, link in self.trainings():
            check(self.run(method, link))

    def trainings(self) -> Iterator[tuple[Method, str | None]]:
        """(method, link) of every training in its order; the link of one that needs none is None."""
        return itertools.product(self.methods, self.links if self.measured else [None])

    def run(self, method: Method, link: str | None) -> Run:
        """The settings of one training."""
        coding = Coding(feature_codec(method.codec, method.config))
        emulated = None if link is None or self.links[link] is None else link
        training = Training(
            devices=1, epochs=self.epochs, batch=self.batch, in_flight=self.in_flight,
            evaluate_every=self.evaluate_every, augment=self.augment, link=emulated,
        )  # fmt: skip
        server = self.server._replace(gradient_codec=method.gradient)
        return Run(self.network, self.data, coding, self.board, training, server, self.seed)


def train(
    plan: Plan,
    known: Collection[Key],
    on_start: Callable[[str, str | None], None],
    on_event: Callable[[Event], None],
    on_training: Callable[[Row], None],
) -> None:
    """Trains all of `plan` but what is `known`. `on_start` gets the method and link of each training before it,
    `on_event` its events, and `on_training` its row in the record. An error names the training it came in."""
    for method, pairs in itertools.groupby(plan.trainings(), lambda pair: pair[0]):
        with tempfile.TemporaryDirectory() as folder:
            bundle: Bundle | None = None
            for _, link in pairs:
                if (method.name, link) in known:
                    continue
                on_start(method.name, link)
                run = plan.run(method, link)
                try:
                    bundle = bundle or export_run(run, os.path.join(folder, "bundle"))
                    found = trained(run, bundle, on_event)
                except EdgekitError as error:
                    error.args = (f"{described(method.name, link)}: {error}",)
                    raise
                on_training({"codec": method.name, "link": link, "seed": plan.seed, **found})


def described(method: str, link: str | None) -> str:
    """A training in words."""
    return method if link is None else f"{method} over {link}"


def trained(run: Run, bundle: Bundle, on_event: Callable[[Event], None]) -> Row:
    """What a whole training came to: its device after each epoch that ended with a test, and the load meanwhile."""
    ours = [HERE]
    times: list[float] = []
    epochs: list[Row] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        cpu = stack.enter_context(CpuTime())
        cpu.add(HERE, os.getpid())

        def on_process(name: str, process: "subprocess.Popen[str]") -> None:
            cpu.add(name, process.pid)
            ours.append(name)

        def see(event: Event) -> None:
            if event["event"] in ("connected", "done"):
                times.append(time.monotonic())
            elif event["event"] == "epoch" and "accuracy" in event:
                epochs.append(_epoch(event))
            on_event(event)

        summary = train_bundle(run, bundle, folder, on_event=see, on_process=on_process)
    start, end = times
    others = cpu.spent(MACHINE, start, end) - sum(cpu.spent(name, start, end) for name in ours)
    return {
        "epochs": epochs,
        "collapsed": summary["collapsed"],
        "others_cpu": max(others, 0.0) / (end - start) / (os.cpu_count() or 1),
    }


def _epoch(event: Event) -> Row:
    """The row of an "epoch" event. All but the accuracy, in percent, is of the training so far, without its tests."""
    seconds = {name: event["seconds"].get(theirs, 0.0) for name, theirs in PARTS.items()}
    return {
        "epoch": event["epoch"],
        "images": event["images"],
        "steps": event["step"],
        "accuracy": event["accuracy"],
        "bytes_up": event["bytes_up"],
        "bytes_down": event["bytes_down"],
        "seconds": {"train": event["train_s"], **seconds},
    }

"""federate: what `edgekit federate` does. Flower runs clients and a server on this machine, in its own environment.

::

    network, dataset, plan --files--> session of Flower --events--> record.jsonl, display --> summary
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekit import tensorfile
from edgekit.data import images
from edgekit.errors import ChildFailed, UsageError
from edgekit.export.named import shape_of
from edgekit.export.settings import NamedData, NamedNetwork
from edgekit.federate.run import KEPT, Plan
from edgekit.federate.simulation import environment
from edgekit.federate.simulation.session import session
from edgekit.federate.simulation.settings import Told, parse_strategy
from edgekit.federate.simulation.task import ARRAYS, Task
from edgekit.kept import check_room
from edgekit.launch.earlier import RECORD
from edgekit.launch.processes import ChildError, Event
from edgekit.line.meter import Recorder

#: The app that Flower is given: its parts are edgekit's own modules.
APP = """[project]
name = "edgekit-federate"
version = "0.1.0"
description = "Rounds of edgekit federate"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "edgekit"

[tool.flwr.app.components]
serverapp = "edgekit.federate.flower.server_app:app"
clientapp = "edgekit.federate.flower.client_app:app"

[tool.flwr.app.config]
task = ""
"""
#: The file of what its parts are told.
TASK = "task.json"


def federate(
    network: NamedNetwork,
    data: NamedData,
    plan: Plan,
    *,
    strategy: str = "fedavg",
    flower: str | None = None,
    workers: int | None = None,
    out: str | None = None,
    overwrite: bool = False,
    command: Sequence[str] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Event:
    """The "summary" event of a whole federated training: rounds of `plan` by Flower's `strategy`.

    `flower` is the folder of Flower's environment, `workers` how many clients train at once (default: one for each
    processor). The folder `out` keeps the network and record.jsonl; docs/record.md describes the events, and
    `on_event` is told each. UsageError, DataError, ExportError before anything is written; ChildFailed where one of
    Flower's programs fails, with the exit code of edgekit's own error where it was one.
    """
    plan.check()
    parse_strategy(strategy)
    programs = environment.find(flower)
    if out is not None:
        _check_out(out, overwrite)
    dataset = data.load(plan.seed).dataset
    shape = shape_of(network, dataset)
    for option, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != shape[0]:
            raise UsageError(f"--{option} of {len(values)} numbers for {shape[0]} channels: expected one per channel")
    fitted = images.fit(dataset, shape)
    with tempfile.TemporaryDirectory(prefix="edgekit-federate-") as scratch:
        folder = Path(scratch)
        told = Told(
            network.name, shape, None if network.weights is None else os.path.abspath(network.weights), dataset.classes,
            data.mean or fitted.mean, data.std or fitted.std, str(folder / "images.safetensors"),
            os.path.abspath(os.path.join(out or scratch, KEPT)), strategy, plan,
        )  # fmt: skip
        tensorfile.write(told.images, {name: getattr(fitted, name) for name in ARRAYS})
        (folder / TASK).write_text(told.to_json(), encoding="utf-8")
        # Here once: what does not fit shows before Flower starts.
        task = Task(str(folder / TASK))
        for number in range(plan.clients):
            task.client(number)
        weights = task.network.weights
        described = _described(told, data, workers, sum(array.nbytes for array in weights.values()))
        if out is not None:
            check_room(out, described["weight_bytes"])
            for name in _earlier(out):
                os.remove(os.path.join(out, name))
        with open(os.path.join(out or scratch, RECORD), "w", encoding="utf-8") as file:
            record = Recorder(file)

            def tell(event: Event) -> None:
                record(event)
                on_event(event)

            called = ["python", *sys.argv] if command is None else list(command)
            tell(dict(described, event="start", command=called, time=time.time()))
            rounds = _run(folder, programs, told, workers or os.cpu_count() or 1, tell)
            last = summary(described, rounds)
            tell(last)
    return last


def summary(described: Event, rounds: Sequence[Event]) -> Event:
    """The last event of a run, of what was run and the events of its rounds."""
    tested = [event for event in rounds if "accuracy" in event]
    totals = {
        name: sum(event[name] for event in rounds)
        for name in ("bytes_up", "bytes_down", "bytes_up_of_clients", "bytes_down_of_clients", "formula_bytes_up")
    }
    # What the same messages would take with whole weights.
    whole = sum(event["clients"] * event["bytes_whole"] for event in rounds)
    best = max(tested, key=lambda event: float(event["accuracy"]))
    return dict(
        described, **totals, event="summary", accuracy=tested[-1]["accuracy"], test_loss=tested[-1]["test_loss"],
        images_tested=tested[-1]["images_tested"], loss=rounds[-1]["loss"], best_accuracy=best["accuracy"],
        best_round=best["round"], bytes_whole=whole, times_fewer_up=whole / totals["bytes_up"],
        times_fewer_down=whole / totals["bytes_down"], seconds=rounds[-1]["seconds"],
    )  # fmt: skip


def _run(folder: Path, programs: Path, told: Told, workers: int, tell: Callable[[Event], None]) -> list[Event]:
    """The events of all rounds, each told as it comes."""
    app = folder / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(APP, encoding="utf-8")
    rounds: list[Event] = []
    last: Event = {"event": "nothing"}
    with session(programs) as flower:
        for event in flower.run(app, {"task": str(folder / TASK)}, told.plan.clients, workers):
            if event["event"] == "failed":
                raise ChildError("the run in Flower", event["code"], [event["reason"]])
            if event["event"] == "round":
                rounds.append(event)
                tell(event)
            elif event["event"] == "ended" and last["event"] != "done":
                raise ChildFailed(f"Flower ended the run after {len(rounds)} rounds: {event['reason']}")
            last = event
    return rounds


def _check_out(folder: str, overwrite: bool) -> None:
    """UsageError where `folder` holds an earlier run, unless `overwrite`, and where it cannot be written to."""
    found = _earlier(folder)
    if found and not overwrite:
        raise UsageError(
            f"--out {folder}: it holds an earlier run ({', '.join(found)}): choose another folder, or --overwrite to "
            "lose it"
        )


def _earlier(folder: str) -> list[str]:
    """What `folder` has of an earlier run."""
    return [name for name in (RECORD, KEPT) if os.path.exists(os.path.join(folder, name))]


def _described(told: Told, data: NamedData, workers: int | None, n_bytes: int) -> dict[str, Any]:
    """What is run, as "start" and "summary" say it."""
    plan = told.plan
    local = {"local_epochs" if name == "epochs" else name: value for name, value in plan.local._asdict().items()}
    return {
        "model": told.model, "weights": told.weights, "shape": list(told.shape), "dataset": data.dataset,
        "limit": data.limit, "strategy": told.strategy, "workers": workers, "weight_bytes": n_bytes,
        **{name: value for name, value in plan._asdict().items() if name not in ("local", "policy")}, **local,
    }  # fmt: skip

"""What is trained for the time to an accuracy: settings, order, what is left out, and an epoch's row."""

from collections.abc import Callable
from typing import Any

import pytest

from edgekit.errors import EdgekitError, UsageError
from edgekit.export.settings import BoardSettings, NamedData, NamedNetwork
from edgekit.launch.settings import Run, Server
from edgekit.link.link import split_links
from edgekit.measure import to_accuracy
from edgekit.measure.methods import parse_list
from edgekit.measure.to_accuracy import Plan

LINKS = split_links("loopback,1mbit+20ms")


def plan(**changed: Any) -> Plan:
    found = Plan(
        NamedNetwork("vgg11"), NamedData(), BoardSettings(), tuple(parse_list("uq,sgq")), LINKS, False, 3, 1, "flip",
        32, 1, Server(), 5,
    )  # fmt: skip
    return found._replace(**changed)


def test_computed_trains_each_method_once_and_measured_over_each_line() -> None:
    def keys(plan: Plan) -> list[Any]:
        return [(method.name, link) for method, link in plan.trainings()]

    assert keys(plan()) == [("uq", None), ("sgq", None)]
    assert keys(plan(measured=True)) == [(name, link) for name in ("uq", "sgq") for link in LINKS]


def test_settings_of_a_training() -> None:
    uq, _ = plan().methods
    run = plan(evaluate_every=2, server=Server(lr=0.01)).run(uq, None)
    training = run.training
    assert (training.devices, training.epochs, training.evaluate_every, training.link) == (1, 3, 2, None)
    assert training.augment == "flip"
    assert (run.server.lr, run.server.gradient_codec, run.seed) == (0.01, "stochastic:bits=4", 5)
    over = [plan(measured=True).run(uq, link).training.link for link in LINKS]
    assert over == [None, "1mbit+20ms"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch": 1}, "batch of 1"),
        ({"in_flight": 2}, "--line measured"),
        ({"links": split_links("1mbit+jitter=5ms")}, "--line measured"),
        ({"server": Server(lr=-1.0)}, "lr"),
        (
            {"measured": True, "in_flight": 99, "methods": tuple(parse_list("sgq:coding=context+dct"))},
            "99 batches in flight",
        ),
    ],
)
def test_a_plan_is_checked_before_anything_is_exported(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan(**changed).check()


def test_a_plan_that_is_none_the_worse() -> None:
    plan().check()
    plan(measured=True, in_flight=2, links=split_links("1mbit+jitter=5ms")).check()


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codecs that were exported, in order; nothing is, and nothing is trained."""
    found: list[str] = []

    def export(run: Run, path: str) -> Any:
        found.append(run.coding.codec.codec_id)
        return found[-1]

    monkeypatch.setattr(to_accuracy, "export_run", export)
    monkeypatch.setattr(to_accuracy, "trained", lambda run, bundle, on_event: {"bundle": bundle})
    return found


def train(plan: Plan, *known: tuple[str, str | None]) -> tuple[list[Any], list[dict[str, Any]]]:
    begun: list[Any] = []
    made: list[dict[str, Any]] = []
    to_accuracy.train(plan, known, lambda *key: begun.append(key), lambda event: None, made.append)
    return begun, made


def test_one_export_for_all_lines_of_a_method(exported: list[str]) -> None:
    begun, made = train(plan(measured=True))
    assert exported == ["uniform", "sgq"] and len(made) == 4
    assert [(row["codec"], row["link"]) for row in made] == begun
    assert all(row["seed"] == 5 for row in made)
    assert [row["bundle"] for row in made] == ["uniform"] * 2 + ["sgq"] * 2


def test_what_is_known_is_left_out(exported: list[str]) -> None:
    begun, _ = train(plan(measured=True), ("uq", "loopback"), ("uq", "1mbit+20ms"), ("sgq", "loopback"))
    assert begun == [("sgq", "1mbit+20ms")] and exported == ["sgq"]


def test_an_error_names_its_training(exported: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EdgekitError("it broke")

    monkeypatch.setattr(to_accuracy, "trained", fail)
    with pytest.raises(EdgekitError, match=r"^uq: it broke$"):
        train(plan())
    with pytest.raises(EdgekitError, match=r"^uq over loopback: it broke$"):
        train(plan(measured=True))


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"event": kind, **fields}


def epoch(number: int, **tested: float) -> dict[str, Any]:
    seconds = {"compute": 1.0 * number, "encode": 0.5, "server": 2.0, "network": 0.25, "evaluate": 9.0}
    return event(
        "epoch", epoch=number, images=100 * number, step=4 * number, bytes_up=7 * number, bytes_down=9 * number,
        train_s=4.0 * number, seconds=seconds, **tested,
    )  # fmt: skip


def test_epochs_with_a_test_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [event("connected"), epoch(1), event("progress", step=5), epoch(2, accuracy=80.0), event("done")]
    told: list[Any] = []

    def launch(run: Run, bundle: Any, folder: str, *, on_event: Callable[[Any], None], on_process: Any) -> Any:
        for each in events:
            on_event(each)
        return {"collapsed": None}

    monkeypatch.setattr(to_accuracy, "train_bundle", launch)
    found = to_accuracy.trained(plan().run(plan().methods[0], None), None, told.append)  # type: ignore[arg-type]
    assert told == events and found["collapsed"] is None and 0 <= found["others_cpu"] <= 1
    assert found["epochs"] == [{
        "epoch": 2, "images": 200, "steps": 8, "accuracy": 80.0, "bytes_up": 14, "bytes_down": 18,
        "seconds": {"train": 8.0, "device_compute": 2.0, "encode": 0.5, "network": 0.25, "server": 2.0},
    }]  # fmt: skip

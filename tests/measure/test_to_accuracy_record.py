"""When an accuracy was reached, and what may be gone on with, against figures worked out by hand."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgekit.errors import UsageError
from edgekit.link.link import split_links
from edgekit.measure.to_accuracy_record import record, resumed, summarise, warnings

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "to-accuracy.schema.json").read_text(encoding="utf-8"))
SETTING = {
    "model": "vgg11", "cut": "features.7", "feature": [128, 8, 8], "dataset": "digits", "limit": 100, "epochs": 3,
    "evaluate_every": 1, "batch": 25, "in_flight": 1, "optimizer": "sgd", "lr": None, "momentum": 0.9,
    "weight_decay": 5e-4, "schedule": "cosine", "seed": 0,
}  # fmt: skip
HERE = {"processor": "a processor", "cores": 2, "python": "3.11.7", "versions": {"numpy": np.__version__}}
LINKS = split_links("loopback,1mbit")
METHODS = {"uq": "uniform:bits=4+stochastic:bits=4", "sgq": "sgq+dct"}
CODECS: dict[str, Any] = {
    name: {"method": text, "codec": "sgq", "config": {}, "gradient": "dct", "formula_bytes_up_per_image": 1.0,
           "bundle": None} for name, text in METHODS.items()
}  # fmt: skip


def training(codec: str, accuracies: list[float], size: int, link: str | None = None, **more: Any) -> dict[str, Any]:
    """Epochs of 2 s and 4 batches, in each of which `size` bytes go up and half as many down."""
    epochs = [
        {"epoch": i, "images": 100 * i, "steps": 4 * i, "accuracy": accuracy, "bytes_up": size * i,
         "bytes_down": size * i // 2, "seconds": {"train": 2.0 * i}}
        for i, accuracy in enumerate(accuracies, 1)
    ]  # fmt: skip
    return {
        "codec": codec, "link": link, "seed": 0, "epochs": epochs, "collapsed": None, "others_cpu": 0.0, **more,
    }  # fmt: skip


UQ, SGQ = training("uq", [60.0, 80.0, 79.0], 500_000), training("sgq", [50.0, 75.0, 90.0], 125_000)


def made(trainings: list[dict[str, Any]], line: str = "computed", **changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"accuracies": (75.0, 80.0, 95.0), "codecs": CODECS, "links": LINKS, **changed}
    when = "2026-11-28T06:00:00Z"
    return record(SETTING, line, given["accuracies"], given["codecs"], given["links"], trainings, HERE, ["x"], when)


def test_the_first_tested_epoch_that_came_to_it_counts() -> None:
    found = summarise("computed", (75.0, 80.0, 95.0), CODECS, LINKS, [UQ, SGQ])
    results = {(row["link"], row["codec"]): row for row in found}
    assert list(results) == [(link, codec) for link in LINKS for codec in CODECS]
    # An epoch of uq: 2 s, 4 Mbit up and 2 down; of sgq a quarter of these.
    assert results["1mbit", "uq"]["seconds"] == pytest.approx([8, 16, 24])
    assert results["1mbit", "sgq"]["seconds"] == pytest.approx([3.5, 7, 10.5])
    assert results["loopback", "sgq"]["seconds"] == [2, 4, 6]
    # Nothing between epochs: 75 and 80 % are both of uq's second, although 75 was passed before.
    first, second, third = results["1mbit", "uq"]["reached"]
    assert first == {"accuracy": 75.0, "seconds": 16.0, "epoch": 2, "images": 200, "bytes_up": 1_000_000,
                     "bytes_down": 500_000, "times": 1.0}  # fmt: skip
    assert (second["epoch"], second["seconds"]) == (2, 16.0)
    assert third == {"accuracy": 95.0, **dict.fromkeys(third.keys() - {"accuracy"})}
    times = [each["times"] for each in results["1mbit", "sgq"]["reached"]]
    assert times == pytest.approx([16 / 7, 16 / 10.5, None])
    assert results["1mbit", "uq"]["best"] == {"accuracy": 80.0, "epoch": 2}


def test_nothing_is_faster_than_what_never_came() -> None:
    found = summarise("computed", (85.0,), CODECS, LINKS, [UQ, SGQ])
    assert [row["reached"][0]["times"] for row in found] == [None] * 4
    assert [row["reached"][0]["epoch"] for row in found] == [None, 3] * 2
    (alone, _) = summarise("computed", (75.0,), CODECS, LINKS, [SGQ])
    assert alone["reached"][0]["epoch"] == 2 and alone["reached"][0]["times"] is None


def test_measured_seconds_are_those_of_the_training_over_the_line() -> None:
    found = summarise("measured", (75.0,), CODECS, LINKS, [training("uq", [75.0], 10**9, "1mbit")])
    assert [(row["link"], row["seconds"]) for row in found] == [("1mbit", [2.0])]


def test_the_record_is_what_the_schema_says() -> None:
    jsonschema.validate(made([UQ, SGQ]), SCHEMA)
    assert made([UQ])["against"] == "uq" and made([UQ])["warnings"] == []


def test_warnings() -> None:
    loaded = [
        training("uq", [10.0], 1, others_cpu=0.3, collapsed="it did"),
        training("sgq", [10.0], 1, others_cpu=None),
    ]
    first, second = warnings(loaded)
    assert first.startswith("other processes took 30%") and second == "uq: training collapsed: it did"
    cut = record(SETTING, "computed", (75.0,), CODECS, LINKS, [UQ], HERE, [], "", "stopped")
    assert cut["warnings"] == ["not complete: stopped"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "record.json"
    place.write_text(json.dumps(made([UQ])), encoding="utf-8")
    return str(place)


def go_on(path: str, **changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"line": "computed", "setting": SETTING, "methods": METHODS, "links": LINKS, "here": HERE}
    return resumed(path, **{**given, **changed})


def test_what_goes_together_is_gone_on_with(path: str) -> None:
    assert go_on(path)["trainings"] == [UQ]
    # What is known only after an export does not matter, and computed seconds are of any line.
    assert go_on(path, setting={**SETTING, "cut": None, "feature": None}, links=split_links("5mbit"))["trainings"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"line": "measured"}, "--line computed, now it is measured"),
        ({"setting": {**SETTING, "epochs": 9}}, "epochs of 3, now it is 9"),
        ({"setting": {**SETTING, "lr": 0.1}}, "lr of None, now it is 0.1"),
        ({"setting": {**SETTING, "input": "3,32,32"}}, "input of None, now it is 3,32,32"),
        ({"setting": {**SETTING, "weights": "0" * 64}}, f"weights of None, now it is {'0' * 64}"),
        ({"here": {**HERE, "python": "3.12.1"}}, "python 3.11.7, now it is 3.12.1"),
        ({"setting": {**SETTING, "cut": "features.4"}}, "cut of features.7"),
        ({"here": {**HERE, "processor": "another"}}, "processor a processor, now it is another"),
        ({"methods": {**METHODS, "uq": "uniform:bits=8+none"}}, "method uq uniform:bits=4"),
        ({"methods": {"sgq": METHODS["sgq"]}}, "has a training of codec uq: name it in --codecs too"),
    ],
)
def test_what_does_not_is_refused(path: str, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        go_on(path, **changed)


@pytest.mark.parametrize(("name", "now"), [("numpy", np.__version__), ("no_such_package", None)])
def test_other_versions_are_refused(path: str, name: str, now: str | None) -> None:
    earlier = json.loads(Path(path).read_text(encoding="utf-8"))
    earlier["machine"]["versions"] = {name: "0.1"}
    Path(path).write_text(json.dumps(earlier), encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(f"made with {name} 0.1, now it is {now}")):
        go_on(path)


def test_a_line_that_was_measured_has_to_be_named(path: str) -> None:
    over = training("uq", [75.0], 1, "1mbit")
    Path(path).write_text(json.dumps(made([over], "measured")), encoding="utf-8")
    assert go_on(path, line="measured")["trainings"] == [over]
    with pytest.raises(UsageError, match="link 1mbit: name it in --links too"):
        go_on(path, line="measured", links=split_links("loopback"))


def test_another_kind_of_record_is_refused(path: str) -> None:
    other = Path(__file__).parents[2] / "bench" / "results" / "scaling.json"
    with pytest.raises(UsageError, match="another kind of record"):
        go_on(str(other))


def test_nothing_that_was_given_is_changed() -> None:
    before = copy.deepcopy([UQ, SGQ])
    made([UQ, SGQ])
    assert before == [UQ, SGQ]

"""`edgekit measure --to-accuracy`: what it refuses, and what it keeps when it is cut short and resumed."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.cli.measure import measure
from edgekit.errors import EdgekitError
from edgekit.measure import to_accuracy

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "to-accuracy.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vgg11", "--epochs", "3"), "--epochs is of --to-accuracy"),
        (("vgg11", "--line", "measured"), "--line is of --to-accuracy"),
        (("vgg11", "--resume", "--out", "x"), "--resume is of --to-accuracy"),
        (("vgg11", "--to-accuracy", "80", "--resume"), "--out is not given"),
        (("vgg11", "--to-accuracy", "80", "--devices", "1,2"), "--devices does not go with --to-accuracy"),
        (("vgg11", "--to-accuracy", "80", "--seconds", "3"), "--seconds does not go with --to-accuracy"),
        (("vgg11", "--to-accuracy", "80", "--mode", "async"), "--mode does not go with --to-accuracy"),
        (("vgg11", "--to-accuracy", "80", "--compare", "x"), "--compare does not go with --to-accuracy"),
        (("vgg11", "--to-accuracy", "80,x"), "expected percentages"),
        (("vgg11", "--to-accuracy", "101"), "expected percentages"),
        (("vgg11", "--to-accuracy", "80,80.0"), "each once"),
        (("vgg11", "--to-accuracy", "80", "--in-flight", "1,2"), "expected one number"),
        (("vgg11", "--to-accuracy", "80", "--in-flight", "2"), "--line measured"),
        (("vgg11", "--to-accuracy", "80", "--links", "1mbit+jitter=5ms"), "--line measured"),
        (("vgg11", "--to-accuracy", "80", "--links", "10mbits"), "10mbits"),
        (("vgg11", "--to-accuracy", "80", "--codecs", "sgk"), "did you mean sgq"),
        (("vgg11", "--to-accuracy", "80", "--batch", "1"), "batch of 1"),
        (("vgg11", "--to-accuracy", "80", "--out", "no/such/folder.json"), "cannot be written"),
        (("vgg11", "--to-accuracy", "80", "--augment", "flop"), "flip"),
        (("BUNDLE", "--to-accuracy", "80"), "expected one model"),
    ],
)
def test_refused(small_bundle: Bundle, arguments: tuple[str, ...], says: str) -> None:
    given = [small_bundle.path if argument == "BUNDLE" else argument for argument in arguments]
    result = CliRunner().invoke(measure, given)
    assert isinstance(result.exception, EdgekitError), result.output
    assert says in str(result.exception)


class Trainings:
    """Stands for the processes: gives 60, 70 and 80 % without them, for the methods in their turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[str, str | None]] = []
        self.ends: BaseException | None = None
        monkeypatch.setattr(to_accuracy, "train", self)

    def __call__(
        self,
        plan: to_accuracy.Plan,
        known: Collection[Any],
        on_start: Callable[[str, str | None], None],
        on_event: Callable[[dict[str, Any]], None],
        on_training: Callable[[dict[str, Any]], None],
    ) -> None:
        for method, link in plan.trainings():
            if (method.name, link) in known:
                continue
            if self.trained and self.ends:
                raise self.ends
            self.trained.append((method.name, link))
            on_start(method.name, link)
            on_event({"event": "start", "cut": "features.7", "feature": [128, 8, 8], "bundle": "0" * 64,
                      "codec_config": {}, "formula_bytes_up_per_image": 4096.0})  # fmt: skip
            on_event({"event": "epoch", "epoch": 1, "epochs": 3, "step": 4, "steps": 12, "accuracy": 60.0})
            epochs = [
                {"epoch": i, "images": 100 * i, "steps": 4 * i, "accuracy": 50.0 + 10 * i, "bytes_up": 10**6 * i,
                 "bytes_down": 10**6 * i, "seconds": {"train": 2.0 * i}} for i in (1, 2, 3)
            ]  # fmt: skip
            on_training({"codec": method.name, "link": link, "seed": 0, "epochs": epochs, "collapsed": None,
                         "others_cpu": 0.0})  # fmt: skip


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    return Trainings(monkeypatch)


def call(path: Path, *more: str) -> Result:
    arguments = ["vgg11", "--to-accuracy", "75,90", "--codecs", "uq,sgq", "--epochs", "3", "--links", "1mbit"]
    return CliRunner().invoke(measure, [*arguments, "--out", str(path), *more])


def test_record_and_table(trainings: Trainings, tmp_path: Path) -> None:
    result = call(tmp_path / "record.json")
    assert result.exception is None, result.output
    assert trainings.trained == [("uq", None), ("sgq", None)]
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    jsonschema.validate(record, SCHEMA)
    # 80 % after 3 epochs of 2 s and 16 Mbit.
    assert record["results"][0]["reached"][0]["seconds"] == 54.0
    assert record["setting"]["lr"] is None and record["setting"]["feature"] == [128, 8, 8]
    assert "never: not in 3 epochs, best 80.0 %" in result.output and "Seconds are computed" in result.output
    assert "uq: epoch 1 of 3, 60.00 %" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_json(trainings: Trainings, tmp_path: Path) -> None:
    result = call(tmp_path / "record.json", "--json")
    jsonschema.validate(json.loads(result.stdout), SCHEMA)


@pytest.mark.parametrize(
    ("ends", "told"), [(KeyboardInterrupt(), "stopped"), (EdgekitError("sgq: it broke"), "sgq: it broke")]
)
def test_what_was_trained_is_kept_and_resumed(
    trainings: Trainings, tmp_path: Path, ends: BaseException, told: str
) -> None:
    path = tmp_path / "record.json"
    trainings.ends = ends
    result = call(path)
    assert result.exit_code and f"warning: not complete: {told}" in result.output
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert [each["codec"] for each in kept["trainings"]] == ["uq"]
    trainings.ends = None
    # Seconds are computed, so that lines and accuracies may be others now.
    result = call(path, "--resume", "--links", "1mbit,10mbit", "--to-accuracy", "70")
    assert result.exception is None, result.output
    assert trainings.trained == [("uq", None), ("sgq", None)]
    whole = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(whole, SCHEMA)
    assert whole["trainings"][0] == kept["trainings"][0] and whole["warnings"] == []
    assert [(row["link"], row["codec"]) for row in whole["results"]] == [
        (link, codec) for link in ("1mbit", "10mbit") for codec in ("uq", "sgq")
    ]
    assert whole["codecs"]["uq"]["bundle"] == "0" * 64
    # All is there: nothing is trained, and the record is made anew.
    assert call(path, "--resume").exception is None and len(trainings.trained) == 2


def test_the_file_is_whole_after_each_training(trainings: Trainings, tmp_path: Path) -> None:
    """As it is found where the process is killed: it says what is missing."""
    path = tmp_path / "record.json"
    seen: list[dict[str, Any]] = []
    began = trainings.trained.append

    class Seen(list[Any]):
        def append(self, key: Any) -> None:
            began(key)
            if path.exists():
                seen.append(json.loads(path.read_text(encoding="utf-8")))

    trainings.trained = Seen()
    call(path)
    (first,) = seen
    assert first["warnings"] == ["not complete: 1 of 2 trainings"] and len(first["trainings"]) == 1


def test_stopped_before_anything_was_trained_nothing_is_written(trainings: Trainings, tmp_path: Path) -> None:
    trainings.trained.append(("none", None))
    trainings.ends = KeyboardInterrupt()
    assert call(tmp_path / "record.json").exit_code and not list(tmp_path.iterdir())


def test_resumed_with_other_settings_it_is_refused(trainings: Trainings, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    call(path)
    before = path.read_bytes()
    result = call(path, "--resume", "--lr", "0.1")
    assert isinstance(result.exception, EdgekitError) and "lr of None, now it is 0.1" in str(result.exception)
    assert path.read_bytes() == before


def test_resumed_with_other_weights_it_is_refused(trainings: Trainings, tmp_path: Path) -> None:
    path, weights = tmp_path / "record.json", tmp_path / "w.safetensors"
    tensorfile.write(str(weights), {"a": np.zeros(3, np.float32)})
    assert call(path, "--weights", str(weights)).exception is None
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert call(path, "--weights", str(moved), "--resume").exception is None  # what they are counts
    for more in (("--input", "1,32,32"), ("--mean", "0.5", "--std", "0.25")):
        result = call(path, "--weights", str(moved), "--resume", *more)
        assert isinstance(result.exception, EdgekitError) and f"{more[0][2:]} of None" in str(result.exception)
    tensorfile.write(str(moved), {"a": np.ones(3, np.float32)})
    for weighted in (("--weights", str(moved)), ()):
        result = call(path, *weighted, "--resume")
        assert isinstance(result.exception, EdgekitError) and "weights of " in str(result.exception)


def test_over_lines_each_is_trained(trainings: Trainings, tmp_path: Path) -> None:
    result = call(tmp_path / "record.json", "--line", "measured", "--links", "1mbit,loopback")
    assert result.exception is None, result.output
    assert trainings.trained == [(codec, link) for codec in ("uq", "sgq") for link in ("1mbit", "loopback")]
    assert "Seconds are measured" in result.output and "time, measured" in result.output

"""`edgekit measure --to-accuracy` with real processes: computed, resumed, measured over a line, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.measuring import NETWORK, ROOT, end_with, start

SCHEMA = json.loads((ROOT / "docs" / "to-accuracy.schema.json").read_text(encoding="utf-8"))
#: Any accuracy is above 1 %, none above 99.9.
GIVEN = (*NETWORK, "--limit", "96", "--batch", "16", "--epochs", "2", "--to-accuracy", "1,99.9")
LINK = "0.5mbit+20ms"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("to-accuracy")


@pytest.fixture(scope="module")
def computed(folder: Path) -> dict[str, Any]:
    """Of uq, and then, resumed, of sgq too."""
    for codecs, more in (("uq", ()), ("uq,sgq", ("--resume",))):
        process = start(
            *GIVEN, "--codecs", codecs, "--links", f"loopback,{LINK}", "--out", "c.json", *more, folder=folder
        )
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert "uq: epoch" not in err and "sgq: epoch 2 of 2" in err and "never: not in 2 epochs" in out
    record: dict[str, Any] = json.loads((folder / "c.json").read_text())
    return record


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, Any]:
    process = start(*GIVEN, "--codecs", "uq", "--links", LINK, "--line", "measured", "--out", "m.json", folder=folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    record: dict[str, Any] = json.loads((folder / "m.json").read_text())
    return record


def test_the_records_are_what_the_schema_says(computed: dict[str, Any], measured: dict[str, Any]) -> None:
    for record in (computed, measured):
        jsonschema.validate(record, SCHEMA)
    assert [(each["codec"], each["link"]) for each in computed["trainings"]] == [("uq", None), ("sgq", None)]
    assert [(each["codec"], each["link"]) for each in measured["trainings"]] == [("uq", LINK)]


def test_bytes_and_seconds_are_those_of_training(computed: dict[str, Any]) -> None:
    uq, sgq = (each["epochs"] for each in computed["trainings"])
    for i, each in enumerate(uq, 1):
        assert (each["epoch"], each["images"], each["steps"]) == (i, 96 * i, 6 * i)
        # 4 bits for each of 1024 values, with frames and labels: the test's 359 images would be far more.
        assert 512 <= each["bytes_up"] / each["images"] < 540 and 512 <= each["bytes_down"] / each["images"] < 540
        seconds = dict(each["seconds"])
        assert 0 < sum(seconds.values()) - seconds["train"] <= 1.05 * seconds["train"]
        assert min(seconds.values()) > 0
    assert uq[1]["seconds"]["train"] > uq[0]["seconds"]["train"]
    assert sgq[1]["bytes_up"] < uq[1]["bytes_up"]


def test_over_a_line_it_takes_what_was_computed_at_least(computed: dict[str, Any], measured: dict[str, Any]) -> None:
    (over,) = measured["trainings"]
    apart = computed["trainings"][0]
    assert [each["accuracy"] for each in over["epochs"]] == [each["accuracy"] for each in apart["epochs"]]
    (seconds,) = [row["seconds"] for row in computed["results"] if (row["codec"], row["link"]) == ("uq", LINK)]
    for i, each in enumerate(over["epochs"]):
        on_the_line = seconds[i] - apart["epochs"][i]["seconds"]["train"]
        # 100 kB at 0.5 Mbit/s, twice, and 12 round trips are 3.6 s; computing comes to that, however long it takes.
        assert 1.6 * (i + 1) < on_the_line < each["seconds"]["train"]
        assert measured["results"][0]["seconds"][i] == each["seconds"]["train"]


def test_the_report_shows_it(computed: dict[str, Any], measured: dict[str, Any], folder: Path) -> None:
    only = ("--format", "md", "--only", "to-accuracy")
    command = [sys.executable, "-m", "edgekit", "report", "c.json", "m.json", *only]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"| {LINK} | 1.00 | uq |") == 2 and done.stdout.count("never: not in 2 epochs") == 5
    assert "time, computed, s" in done.stdout and "time, measured, s" in done.stdout


def test_stopped_it_leaves_no_process_behind(folder: Path) -> None:
    process = start(
        *GIVEN, "--codecs", "uq", "--links", "10kbit", "--line", "measured", "--out", "s.json", folder=folder
    )
    # Server, line and device; at this rate an epoch takes minutes.
    end_with(process, 3)
    assert not (folder / "s.json").exists()

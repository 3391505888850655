"""`edgekit measure --devices` with real processes: its record, its table, its report, and how it ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.measuring import NETWORK, ROOT, start

SCHEMA = json.loads((ROOT / "docs" / "scaling.schema.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scaling")


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, Any]:
    flags = ("--devices", "1,2", "--images", "128", "--repeats", "1", "--codecs", "uq", "--device-share", "0.25")
    process = start(*NETWORK, *flags, "--batch", "16", "--out", "scaling.json", folder=folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "each training: 128 images, 1 epoch of 128" in err and "edgekit report scaling.json" in err
    assert "0.25 of a core for each device" in out and "2 device processes at 0.25" not in out
    record: dict[str, Any] = json.loads((folder / "scaling.json").read_text())
    return record


def test_the_record_is_what_the_schema_says(measured: dict[str, Any]) -> None:
    jsonschema.validate(measured, SCHEMA)
    keys = [(cell["codec"], cell["link"], cell["mode"], cell["devices"], cell["repeat"]) for cell in measured["cells"]]
    assert keys == [("uq", "loopback", "sync", devices, 0) for devices in (1, 2)]
    assert measured["setting"]["images"] == 128 and measured["setting"]["feature"] == [16, 8, 8]


def test_each_fleet_saw_the_same_images(measured: dict[str, Any]) -> None:
    one, two = measured["cells"]
    assert one["images"] == two["images"] == 128
    # 8 batches of 16 one after the other, or 4 steps on two of them.
    assert one["fleet"]["steps"] == 8 and two["fleet"]["steps"] == 4
    assert one["fleet"]["rounds"] == 0 and two["fleet"]["rounds"] == 1
    # An image's codes are 4 bits for each of 1024 values; front halves are sent by two devices, not by one.
    assert one["bytes_per_image"]["up"]["feature"] == pytest.approx(512, abs=10)
    assert "update" in two["bytes_per_image"]["up"] and not one["bytes_per_image"]["up"].get("update", 0) > 100
    for cell in (one, two):
        assert cell["images_per_s"] == pytest.approx(128 / cell["seconds"])
        assert 0 <= cell["accuracy"] <= 100 and cell["quarantined"] == {}
        assert 0 < cell["seconds_per_image"]["device_compute"] < cell["seconds"]
        assert cell["cpu_seconds_per_image"]["server"] > 0 and cell["cpu_seconds_per_image"]["device"] > 0


def test_devices_got_their_share_and_no_more(measured: dict[str, Any]) -> None:
    for cell in measured["cells"]:
        # A start in debt and one tick beyond the end are the most that it may be above.
        assert 0 < cell["busy"]["device"] < 0.25 + 0.02 / cell["seconds"] + 0.03


def test_the_report_shows_it(measured: dict[str, Any], folder: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "report", "scaling.json", "--format", "md", "--only", "scaling"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| loopback | sync | uq |") == len(measured["results"]) == 2


def test_stopped_it_leaves_no_process_and_no_stopped_one_behind(folder: Path) -> None:
    # At a hundredth of a core the device is stopped nearly all the time.
    process = start(
        *NETWORK, "--devices", "1,2", "--images", "1000", "--codecs", "uq", "--device-share", "0.01", folder=folder
    )
    children: list[int] = []
    until = time.monotonic() + 300
    while not any(stopped(pid) for pid in children):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err
    assert len(children) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in children)


def stopped(pid: int) -> bool:
    """Whether process `pid` is stopped by a signal."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False

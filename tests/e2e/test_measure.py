"""`edgekit measure` with real processes and an emulated line: its record, its table, and how it ends."""

import getpass
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgekit.data.base import Dataset
from tests.conftest import export_small
from tests.e2e.measuring import ROOT, end_with, start

SCHEMA = json.loads((ROOT / "docs" / "measure.schema.json").read_text())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    export_small(folder / "fp32", digits, "raw")
    export_small(folder / "sgq", digits, "sgq", groups=4, bits=4)
    return folder


@pytest.fixture(scope="module")
def measured(bundles: Path) -> dict[str, Any]:
    flags = ("--links", "loopback,2mbit+20ms", "--seconds", "0.2", "--repeats", "1")
    process = start("fp32", "sgq", *flags, "--out", "record.json", folder=bundles)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "link-bound" in out and "edgekit report record.json" in err
    record: dict[str, Any] = json.loads((bundles / "record.json").read_text())
    return record


def test_the_record_is_what_the_schema_says(measured: dict[str, Any]) -> None:
    jsonschema.validate(measured, SCHEMA)
    keys = [(cell["repeat"], cell["link"], cell["in_flight"], cell["codec"]) for cell in measured["cells"]]
    links, codecs = ("loopback", "2mbit+20ms"), ("fp32", "sgq")
    assert keys == [(0, link, 1, codec) for link in links for codec in codecs]
    assert len(measured["results"]) == 4 and len(measured["encoding"]) == 2


def test_the_line_is_felt(measured: dict[str, Any]) -> None:
    """32 images of 4 KiB each take half a second at 2 Mbit/s, so fp32 cannot be faster than its bound."""
    fp32 = [cell for cell in measured["cells"] if cell["codec"] == "fp32" and cell["link"] != "loopback"]
    for cell in fp32:
        assert cell["images_per_s"] < 1.05 * 2e6 / 8 / sum(cell["bytes_per_image"]["up"].values())
        assert cell["latency_s"]["p50"] > 0.5 + 0.02
    results = {(r["codec"], r["link"]): r for r in measured["results"]}
    assert results["fp32", "loopback"]["link_bound_images_per_s"] is None
    # How much faster sgq was depends on what else the machine does; what the line allows, and the quotient, do not.
    sgq, raw = results["sgq", "2mbit+20ms"], results["fp32", "2mbit+20ms"]
    assert sgq["link_bound_images_per_s"] > 4 * raw["link_bound_images_per_s"]
    quotient = sgq["images_per_s"]["median"] / raw["images_per_s"]["median"]
    assert sgq["speedup"]["fp32"]["low"] == pytest.approx(quotient)


def test_compared_with_itself(bundles: Path, measured: dict[str, Any]) -> None:
    flags = ("--links", "loopback", "--seconds", "0.1", "--repeats", "1", "--compare", "record.json")
    process = start("fp32", *flags, folder=bundles)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "against the earlier record" in out and "not the same: setting seconds: 0.1 now, 0.2 before" in out


def test_stopped_it_leaves_no_process_behind(bundles: Path) -> None:
    process = start("fp32", "--links", "10kbit", "--seconds", "0.2", folder=bundles)
    assert process.stderr is not None
    assert any("encoding alone" in line for line in process.stderr)
    # A server has run all along; at this rate, the device that comes now would for minutes.
    end_with(process, 2)


def test_the_device_may_be_a_board_behind_ssh(bundles: Path, board: Any) -> None:
    where = ("--host", f"{getpass.getuser()}@127.0.0.1", "--ssh", board.ssh(), "--python", sys.executable)
    flags = ("--links", "loopback,2mbit", "--seconds", "0.2", "--repeats", "1", "--out", "there.json")
    process = start("sgq", *where, *flags, folder=bundles)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    record = json.loads((bundles / "there.json").read_text())
    jsonschema.validate(record, SCHEMA)
    assert record["setting"]["host"] == where[1] and record["setting"]["cores"] is None
    assert [cell["link"] for cell in record["cells"]] == ["loopback", "2mbit"]
    assert len(record["encoding"]) == 1 and record["machine"]["device"]["python"]
    assert all(cell["cpu_seconds_per_image"]["device"] > 0 for cell in record["cells"])
    sent = list((board.home / "edgekit" / "bundles").iterdir())
    assert {"files: ", "environment: "} <= {f"{line.partition(':')[0]}: " for line in err.splitlines()}
    assert any((folder / "front.onnx").read_bytes() == (bundles / "sgq/front.onnx").read_bytes() for folder in sent)


def test_a_board_that_cannot_be_reached_is_told_at_once(bundles: Path) -> None:
    process = start("sgq", "--host", "nobody@127.0.0.1", "--ssh", "ssh -p 9 -F none", folder=bundles)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 13 and "nothing answers" in err

"""`edgekit cuts` and `edgekit plan`: what they print and write, and what they say of wrong options."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli import group
from edgekit.errors import UsageError
from edgekit.export.models.registry import default_cut

PLAN = ("plan", "vgg11_thin", "--device", "jetson-nano", "--link", "10mbit+20ms", "--batch", "2", "--cuts")


def edgekit(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments)


def test_cuts() -> None:
    shown = edgekit("cuts", "resnet18")
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    # 1728 + 128 of the stem, 147968 and 525568 of two stages; 287 million multiply-adds, and what is counted besides.
    assert ["layer2.1", "128x16x16", "675.4", "10498.6", "575.6", "537.3", "131072", "1024", "default,"] in [
        row[:9] for row in rows
    ]
    assert "[512] an image, expected (C,h,w): cut before the head" in " ".join(shown.stdout.split())


def test_cuts_as_json() -> None:
    record = json.loads(edgekit("cuts", "resnet18", "--input", "1,28,28", "--groups", "3", "--json").stdout)
    assert record["input"] == [1, 28, 28] and record["codec"] == {"id": "sgq", "config": {"groups": 3, "bits": 4}}
    assert [cut["layer"] for cut in record["cuts"] if cut["default"]] == [default_cut("resnet18")]
    assert all("choose --groups" in cut["refusal"] for cut in record["cuts"] if len(cut["shape"]) == 3)


def test_plan_prints_and_writes(tmp_path: Path) -> None:
    out, png = tmp_path / "plan.json", tmp_path / "plan.png"
    shown = edgekit(*PLAN, "features.3,features.7,flatten", "--out", str(out), "--png", str(png))
    assert shown.exit_code == 0, shown.output
    assert "vgg11_thin 3x32x32 on NVIDIA Jetson Nano" in shown.stdout and "link 10mbit+20ms" in shown.stdout
    assert "images: 2 random normal images" in shown.stdout and "left out flatten" in shown.stdout
    assert png.read_bytes().startswith(b"\x89PNG")
    record = json.loads(out.read_text(encoding="utf-8"))
    assert {each["cut"]["layer"] for each in record["predictions"]} == {"features.3", "features.7"}


def test_plan_measured_as_json() -> None:
    shown = edgekit(*PLAN, "features.7", "--measure", "--dataset", "digits", "--json", "--devices", "3")
    assert shown.exit_code == 0, shown.output
    record = json.loads(shown.stdout)
    assert record["input_shape"] == [1, 32, 32] and record["images"] == "2 of digits"
    assert record["device_time"].startswith("measured on this host, ONNX Runtime")
    (each,) = record["predictions"]
    assert each["images_per_s"] == pytest.approx(min(3 * 2 / sum(each["step"].values()), 2 / each["step"]["server"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--link", "10"], "link '10': expected RATE"),
        (["--device", "jetson-nanu"], "unknown device 'jetson-nanu': did you mean jetson-nano"),
        (["--cuts", "features.77"], "unknown cut 'features.77': did you mean"),
        (["--out", "/nowhere/plan.json"], "/nowhere/plan.json cannot be written"),
        (["--png", "/"], "/ cannot be written"),
        (["--torch-device", "tpu"], "--torch-device tpu: expected auto, cpu or cuda"),
        (["--codec", "sqg"], "unknown feature codec 'sqg': did you mean sgq"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    result = edgekit(*PLAN, "features.3", *arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "1"], "'--batch': 1 is not in the range"),
        (["--devices", "0"], "'--devices': 0 is not in the range"),
        (["--server-threads", "99999999999"], "'--server-threads': 99999999999 is not in the range"),
        (["--seed", "-1"], "'--seed': -1 is not in the range"),
    ],
)
def test_numbers_out_of_range(arguments: list[str], message: str) -> None:
    result = edgekit("plan", "vgg11", "--device", "cpu", "--link", "1mbit", *arguments)
    assert result.exit_code == 2 and message in result.output


def test_cuts_that_the_board_refuses_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wide_pool_net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    front = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(20, 1), nn.ReLU()]\n"
        "    return nn.Sequential(*front, nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", "wide_pool_net:make", "--device", "atlas-200-dk", "--link", "1mbit", "--input", "1,28,28"]
    result = edgekit(*arguments, "--batch", "4", "--cuts", "1,3", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [each["cut"]["layer"] for each in told["predictions"]] == ["1"] and told["classes"] == 4
    assert "rule pool-ascend" in told["refused"]["3"]

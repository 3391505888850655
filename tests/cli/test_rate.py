"""`--target-bytes`, `--max-accuracy-drop`, `--coding`: what is chosen and shown, and that the line keeps to it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli import group

MODEL = ("vgg11_thin", "--cut", "features.7", "--input", "1,16,16", "--dataset", "digits", "--limit", "640")


def edgekit(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One epoch in real processes, at 300 bytes an image."""
    out = tmp_path_factory.mktemp("trained")
    # The bytes are expected of a network as it is exported: it is not to change much.
    slow = ("--lr", "0.01", "--devices", "1", "--epochs", "1")
    arguments = (*slow, "--target-bytes", "300", "--calibration", "128", "--json")
    with pytest.MonkeyPatch.context() as patch:
        # Among fewer candidates, for the k-means of 6 and 8 bits takes most of the time.
        patch.setattr("edgekit.export.rate.choose.BITS", (2, 3, 4))
        return out, edgekit("train", *MODEL, *arguments, "--out", str(out), "--rate-plot", str(out / "rate.png"))


def test_the_line_takes_about_the_bytes_of_the_goal(trained: tuple[Path, Result]) -> None:
    out, result = trained
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout)
    assert last["images"] == 640 and last["codec_config"]["coding"] == "context"
    assert last["calibrate"] is not None and last["calibrate"] == last["rate"]["gradient"]
    measured = last["bytes_up_per_image"] + last["bytes_down_per_image"]
    assert 0.85 * 300 < measured < 1.15 * 300, last
    assert (out / "rate.png").read_bytes().startswith(b"\x89PNG")
    assert "->" in result.stderr and "measured on 64 images" in result.stderr


def test_inspect_shows_the_choice(trained: tuple[Path, Result]) -> None:
    bundle = str(trained[0] / "bundle")
    shown = edgekit("inspect", bundle)
    assert shown.exit_code == 0, shown.output
    assert "grouping spectral, coding context" in shown.stdout and "chosen for --target-bytes 300" in shown.stdout
    assert json.loads(edgekit("inspect", bundle, "--json").stdout)["rate"]["bytes"] <= 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-bytes", "300", "--max-accuracy-drop", "1"), "give one of"),
        (("--target-bytes", "300", "--bits", "4"), "--bits is chosen by --target-bytes"),
        (("--target-bytes", "300", "--codec", "raw"), "codec 'raw' has no groups and bits"),
        (("--target-bytes", "300", "--batch", "200"), "at least 400 labelled ones"),
        (("--target-bytes", "0"), "0.0 is not in the range x>0"),
        (("--max-accuracy-drop", "1"), "its weights are fresh: give --weights FILE"),
        (("--rate-plot", "x.png"), "--rate-plot draws what"),
        (("--target-bytes", "300", "--rate-plot", "/dev/null/x.png"), "/dev/null/x.png cannot be written"),
        (("--coding", "contxt"), "unknown coding 'contxt'"),
    ],
)
def test_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = edgekit("export", *MODEL, "-o", str(tmp_path / "b"), *arguments)
    assert result.exit_code != 0 and message in f"{result.output} {result.exception}", result.output
    assert not (tmp_path / "b").exists()


def test_a_policy_of_ones_own_and_a_rate_exclude_each_other() -> None:
    result = edgekit("train", *MODEL, "--target-bytes", "300", "--gradient-codec", "none")
    assert result.exit_code == 2 and "--gradient-codec is chosen by --target-bytes" in result.output


@pytest.mark.parametrize(("given", "coding"), [((), "context"), (("--coding", "packed"), "packed")])
def test_coding(given: tuple[str, ...], coding: str, tmp_path: Path) -> None:
    path = str(tmp_path / "b")
    result = edgekit("export", *MODEL, "-o", path, *given, "--groups", "4", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["codec"]["config"].get("coding", "packed") == coding and "rate" not in record
    assert f"grouping spectral, coding {coding}" in edgekit("inspect", path).stdout

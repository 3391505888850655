"""The measurements can still be made: each script starts against the code as it is."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

BENCH = Path(__file__).parents[1] / "bench"
SCRIPTS = sorted(path.name for path in BENCH.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str) -> None:
    command = [sys.executable, str(BENCH / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


def test_seeds_come_together(tmp_path: Path) -> None:
    """A file of rows and two others, whose one has a seed again and whose other has a new one."""
    row = json.loads((BENCH / "results" / "accuracy.json").read_text(encoding="utf-8"))[0]
    row.update(seeds=[0, 1], accuracies=[50.0, 53.0], accuracy=51.5, bytes_up=100.0, command=["first"])
    others = [{**row, "seeds": [seed], "accuracies": [56.0], "bytes_up": 160.0, "command": ["new"]} for seed in (1, 2)]
    paths = []
    for i, rows in enumerate([[row], [others[0]], [others[1]]]):
        paths.append(tmp_path / f"{i}.json")
        paths[-1].write_text(json.dumps(rows), encoding="utf-8")
    command = [sys.executable, str(BENCH / "accuracy.py"), "--json", str(tmp_path / "all"), "--show", *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (joined,) = json.loads((tmp_path / "all").read_text(encoding="utf-8"))
    assert (joined["seeds"], joined["accuracies"]) == ([0, 1, 2], [50.0, 53.0, 56.0])
    assert (joined["accuracy"], joined["spread"], joined["bytes_up"]) == (53.0, 6.0, 120.0)
    assert (joined["command"], joined["further_commands"]) == (["first"], [["new"]])


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_what_autocast_computes(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import bfloat16

    monkeypatch.setattr(bfloat16, "native", lambda: native)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)]
    half, expected = nn.Sequential(*layers), nn.Sequential(*copy.deepcopy(layers))
    bfloat16.bfloat16(half)
    image, gradient = torch.randn(16, 3, 8, 8), torch.randn(16, 10)
    with bfloat16.precision(True):
        output = half(image)
    output.backward(gradient.to(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        again = expected(image)
    again.backward(gradient.bfloat16())
    # Sums in another order round otherwise now and then, by 1 in 256; float32 differs everywhere.
    assert (output.float() == again.float()).float().mean() > 0.9
    torch.testing.assert_close(output.float(), again.float(), rtol=0.02, atol=0.02)
    for one, other in zip(half.parameters(), expected.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm() + 1e-3

"""Option objects from options, and what users are told about these."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgekit.bundle import open_bundle
from edgekit.cli import group, settings

#: Of layers that do not learn.
NEVER = "the other layers of the front half were never trained, and never will be"


@pytest.mark.parametrize(
    ("model", "layers", "weights", "expected"),
    [
        ("vgg11", 2, None, f"--train-layers 2 without --weights: {NEVER}. Give"),
        ("own:make", 1, None, f"{NEVER}, unless own:make gives them trained weights. Give"),
        ("vgg11", None, None, None),
        ("vgg11", 2, "trained.safetensors", None),
    ],
)
def test_frozen_layers_want_weights(model: str, layers: int | None, weights: str | None, expected: str | None) -> None:
    given: dict[str, Any] = {"model": model, "train_layers": layers, "weights": weights}
    assert (expected or "") in settings.hint(given) and bool(settings.hint(given)) == bool(expected)


def test_export_and_train_say_so(tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle")
    network = ("tests.conftest:SmallNet", "--input", "1,16,16", "--cut", "features", "--train-layers", "1")
    exported = CliRunner().invoke(group, ["export", *network, "-o", bundle, "--json"])
    assert exported.exit_code == 0 and NEVER in exported.stderr and NEVER not in exported.stdout
    assert len(open_bundle(bundle).learned) < len(open_bundle(bundle).arrays("front.safetensors"))
    # Before what takes long, or fails.
    trained = CliRunner().invoke(group, ["train", *network, "--lr", "-1"])
    assert trained.exit_code != 0 and NEVER in trained.stderr

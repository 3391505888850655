"""The names that `import edgekit` gives: all there, each from its place, and nothing heavy until it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import edgekit
from edgekit.codecs.features.uniform import Uniform
from edgekit.data.base import Dataset, mean_std
from edgekit.errors import UsageError
from edgekit.export.settings import Calibration, CalibrationImages, NamedData, NamedNetwork
from edgekit.launch.settings import Server, Training

ROOT = Path(edgekit.__file__).parents[1]
LAZY = sorted(set(edgekit.__all__) - {"__version__"})


def test_every_name_is_there() -> None:
    assert LAZY == ["Device", "Service", "export_bundle", "open_bundle", "train"]
    assert set(edgekit.__all__) <= set(dir(edgekit))
    for name in LAZY:
        assert getattr(edgekit, name).__name__ == name
        assert getattr(edgekit, name).__module__.startswith("edgekit.")


def test_type_checkers_see_the_same_places() -> None:
    tree = ast.parse(Path(edgekit.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == edgekit._PLACES


def test_unknown_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'trian'"):
        edgekit.trian  # noqa: B018
    # A module of the package is no name of its own.
    assert importlib.import_module("edgekit.errors").UsageError is UsageError


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import edgekit", {"numpy", "torch", "onnx", "click"}),
        ("from edgekit import open_bundle", {"torch", "onnx", "click"}),
        ("from edgekit import Device", {"torch", "onnx", "click"}),
    ],
)
def test_importing_is_light(statement: str, absent: set[str]) -> None:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert not absent & set(done.stdout.split())


def network() -> nn.Sequential:
    """8x8 grey image -> 10 classes; cut at "1"."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), pool)


@pytest.mark.parametrize("given", ["a dataset", "calibration", "images", "a name"])
def test_a_network_in_memory(given: str, tmp_path: Path) -> None:
    small = NamedData("digits", limit=100, n_images=32).load(0)
    dataset = small.dataset
    images = CalibrationImages(dataset.train_images, *mean_std(dataset.train_images), 10, dataset.train_labels)
    data: dict[str, str | Dataset | Calibration | CalibrationImages] = {
        "a dataset": dataset, "calibration": small, "images": images, "a name": "digits",
    }  # fmt: skip
    model = network()
    bundle = edgekit.export_bundle(model, str(tmp_path / "b"), cut="1", data=data[given], codec=Uniform(bits=6))
    assert bundle.model == "Sequential" and bundle.cut == "1" and bundle.feature_shape == (8, 8, 8)
    assert bundle.input_shape == (1, 8, 8) and bundle.classes == 10
    # Images in memory do not say what their classes are called.
    assert bundle.class_names == (() if given == "images" else dataset.classes)
    assert bundle.codec.codec_id == "uniform" and bundle.codec.config["bits"] == 6
    weight = bundle.arrays("front.safetensors")["0.weight"]
    assert np.array_equal(weight, model.get_parameter("0.weight").detach().numpy())
    assert edgekit.open_bundle(str(tmp_path / "b")).digest == bundle.digest


@pytest.mark.parametrize("model", ["vgg11_thin", NamedNetwork("vgg11_thin", cut="features.3")])
def test_a_network_by_name(model: str | NamedNetwork, tmp_path: Path) -> None:
    data = NamedData("digits", limit=100, n_images=32)
    if isinstance(model, NamedNetwork):
        model = model._replace(input_shape="1,16,16")
    bundle = edgekit.export_bundle(model, str(tmp_path / "b"), cut="features.7", data=data, codec="sgq:groups=2,bits=3")
    assert (bundle.model, bundle.cut) == ("vgg11_thin", "features.7")
    assert bundle.codec.config.items() >= {"groups": 2, "bits": 3}.items()
    assert bundle.class_names == tuple("0123456789")
    with pytest.raises(UsageError, match="--force"):
        edgekit.export_bundle(model, str(tmp_path / "b"), data=data)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    images = CalibrationImages(np.zeros((4, 1, 8, 8), np.uint8), (0.0,), (1.0,), 10)
    with pytest.raises(UsageError, match="Sequential has no default cut: name the layer"):
        edgekit.export_bundle(network(), str(tmp_path / "b"), data=images)
    with pytest.raises(UsageError, match="vgg11 is built for a dataset, and got images"):
        edgekit.export_bundle("vgg11", str(tmp_path / "b"), data=images)
    named = images._replace(class_names=("cat", "dog"))
    with pytest.raises(UsageError, match="2 class names, expected 10: a bundle keeps"):
        edgekit.export_bundle(network(), str(tmp_path / "b"), cut="1", data=named)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": Training(devices=0)}, "0: expected at least 1"),
        ({"training": Training(devices=720)}, "--devices 720: 1438 training images, expected at least 2 for each"),
        ({"training": Training(backend="tensort")}, "tensort"),
        ({"training": Training(link="10mb")}, "link '10mb': expected RATE"),
        ({"server": Server(schedule="cosin")}, "cosin"),
        ({"server": Server(gradient_codec="dtc")}, "dtc"),
        ({"codec": "sgq:groups"}, "'groups' of 'sgq:groups' lacks its value"),
        ({"data": "digit"}, "unknown dataset 'digit': did you mean digits"),
    ],
)
def test_training_refuses_before_it_starts(given: dict[str, Any], message: str) -> None:
    told: list[dict[str, Any]] = []
    with pytest.raises(UsageError, match=message):
        edgekit.train("vgg11_thin", on_event=told.append, **given)
    assert not told

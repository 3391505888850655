"""A whole training on a second execution provider of ONNX Runtime: OpenVINO's, on the CPU, in its own environment.

Its package takes the place of onnxruntime's. EDGEKIT_OPENVINO_PYTHON names a Python that has it, numpy and grpcio; else
one is made, where the package index has it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import edgekit
from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import BackendError
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from tests.package_index import pip

PACKAGES = ("onnxruntime-openvino==1.24.1", "numpy", "grpcio")
ROOT = Path(edgekit.__file__).parent.parent
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
EPOCHS = 4


@pytest.fixture(scope="session")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with onnxruntime-openvino; skips where there is none and no index to install it from."""
    given = os.environ.get("EDGEKIT_OPENVINO_PYTHON")
    if given:
        return given
    folder = tmp_path_factory.mktemp("openvino") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=300)
    python = str(folder / "bin" / "python")
    pip(python, "install", *PACKAGES, may_lack=True)
    return python


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """For OpenVINO: batch norm, a depthwise and a pointwise convolution, pooling; 32x4x4 at "10"."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Identity(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return build_bundle(
        str(tmp_path_factory.mktemp("openvino") / "bundle"),
        Network(network, "small", "10"),
        CalibrationImages(digits.train_images[:256], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {"groups": 8, "bits": 5})),
        BoardSettings("cpu", provider="openvino"),
    )


def test_it_learns_as_on_the_cpu(openvino: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import provider_training

    accuracy, reference = (
        provider_training.train(openvino, bundle.path, provider, EPOCHS, 0)["accuracy"]
        for provider in ("openvino", "cpu")
    )
    assert min(accuracy, reference) > 80 and abs(accuracy - reference) < 4


CODE = """
import sys
import numpy as np
from edgekit.bundle import open_bundle
from edgekit.errors import BackendError
from edgekit.runtime.learn import FrontHalf
bundle = open_bundle(sys.argv[1])
rng = np.random.default_rng(0)
image = rng.standard_normal((16,) + bundle.input_shape, dtype=np.float32)
gradient = rng.standard_normal((16,) + bundle.feature_shape, dtype=np.float32)
for provider in ("auto", "openvino"):
    fronts = [FrontHalf(bundle, "onnxruntime", 1, each) for each in (provider, "cpu")]
    assert [front.passes.provider.name for front in fronts] == ["openvino", "cpu"]
    passes = [front.forward(image) for front in fronts]
    assert (passes[0].codes["codes"] == passes[1].codes["codes"]).mean() > 0.999
    gradients = [front.backward(forward, gradient) for front, forward in zip(fronts, passes)]
    for name, expected in gradients[1].items():
        assert np.linalg.norm(gradients[0][name] - expected) < 0.02 * np.linalg.norm(expected), name
print("same")
"""


def test_gradients_are_those_of_the_cpu(openvino: str, bundle: Bundle) -> None:
    command = [openvino, "-c", CODE, bundle.path]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.stdout == "same\n", done.stderr


def test_where_it_is_not_installed_the_device_says_what_to_install(bundle: Bundle) -> None:
    command = [sys.executable, "-m", "edgekit.runtime", bundle.path, "--measure", "1", "--provider", "openvino"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == BackendError.exit_code
    assert "provider 'openvino' cannot run here" in done.stderr and "pip install onnxruntime-openvino" in done.stderr

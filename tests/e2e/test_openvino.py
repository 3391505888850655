"""A whole training on a second execution provider of ONNX Runtime: OpenVINO's, on the CPU, in its own environment.

Its package takes the place of onnxruntime's. EDGEKIT_OPENVINO_PYTHON names a Python that has it, numpy and grpcio; else
one is made, where the package index has it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn
import torch
from torch import nn

import edgekit
from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import BackendError
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network

PACKAGES = ("onnxruntime-openvino==1.24.1", "numpy", "grpcio")
ROOT = Path(edgekit.__file__).parent.parent
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
DATA = str(Path(sklearn.__file__).parent / "datasets" / "data")
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
    install = [python, "-m", "pip", "install", "--retries", "1", "--only-binary", ":all:", *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600)
    said = done.stdout + done.stderr
    if "connection broken" in said or "Could not fetch URL" in said:
        pytest.skip(f"the package index cannot be reached, so {' '.join(PACKAGES)} cannot be installed")
    if "No matching distribution" in said:
        pytest.skip(f"no wheel of {' '.join(PACKAGES)} for this Python or platform: {said.splitlines()[-1]}")
    assert done.returncode == 0, said
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


def train(python: str, bundle: Bundle, provider: str) -> tuple[dict[str, str], float]:
    """The "opened" event of a device on `python`, and the accuracy that it ends with, percent."""
    serve = [
        sys.executable,
        "-m",
        "edgekit",
        "serve",
        bundle.path,
        "--listen",
        "127.0.0.1:0",
        "--devices",
        "1",
        "--json",
    ]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        command = [python, "-m", "edgekit.runtime", bundle.path, "--server", f"127.0.0.1:{port}", "--data", DATA]
        command += ["--epochs", str(EPOCHS), "--provider", provider, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=500)
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
    finally:
        server.terminate()
        server.communicate(timeout=100)
    (opened,) = (event for event in events if event["event"] == "opened")
    return opened, float(events[-1]["accuracy"])


def test_it_learns_as_on_the_cpu(openvino: str, bundle: Bundle) -> None:
    opened, accuracy = train(openvino, bundle, "openvino")
    assert (opened["provider"], opened["wanted"], opened["learns_on"]) == ("openvino", "openvino", "onnxruntime")
    opened, reference = train(openvino, bundle, "cpu")
    assert opened["provider"] == "cpu"
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

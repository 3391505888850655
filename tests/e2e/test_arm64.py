"""Another processor: a device on an emulated Cortex-A57, the Jetson Nano's core, beside one on this machine."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

import edgekit
from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.export.build import NORMS, build_bundle
from edgekit.export.fold import settle_norms
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from tests.e2e import every_codec

# The board takes 15 s to set up, and more where Debian or the package index is far.
pytestmark = pytest.mark.timeout(1200)

BOARD = Path(__file__).parent / "arm64_board.py"
#: The exit code of BOARD where this machine cannot have one.
NOT_HERE = 75
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parent.parent), "OMP_NUM_THREADS": "1"}

#: Encodes and packs, takes one training step, encodes again.
STEP = """
import platform
import sys
import numpy as np
import onnxruntime
from edgekit import tensorfile
from edgekit.bundle import open_bundle
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.optim import optimizer

bundle, given, result = sys.argv[1:]
with open(given, "rb") as file:
    given = tensorfile.loads(file.read())
bundle = open_bundle(bundle)
front = FrontHalf(bundle, "onnxruntime", 1)
arrays = {}
sender, receiver = bundle.codec.stream(), bundle.codec.stream()

def encode(name):
    for start in range(0, len(given["images"]), 32):
        codes = {key: value.copy() for key, value in front.encode(given["images"][start : start + 32]).items()}
        payload = sender.pack(codes)
        symbols, _ = receiver.unpack(payload, (len(codes["codes"]),) + tuple(bundle.feature_shape))
        sender.update(codes)
        receiver.update(symbols)
        where = "{} {} ".format(name, start)
        arrays[where + "codes"] = codes["codes"]
        arrays[where + "symbols"] = symbols["codes"]
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)

encode("exported")
forward = front.forward(given["images"][:32])
arrays["feature"] = forward.feature
gradients = front.backward(forward, given["gradient"])
arrays.update({"gradient." + name: value for name, value in gradients.items()})
front.learn(gradients, optimizer("sgd", {"momentum": 0.9, "weight_decay": 5e-4}), 0.05)
arrays.update({"weight." + name: value for name, value in front.state.items()})
encode("learned")
tensorfile.write(result, arrays)
print(platform.machine(), np.__version__, onnxruntime.__version__)
"""


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that start the board's Python; EDGEKIT_ARM64 names a folder to keep it in, and to find it in again."""
    folder = os.environ.get("EDGEKIT_ARM64") or str(tmp_path_factory.mktemp("arm64"))
    made = subprocess.run([sys.executable, str(BOARD), folder], capture_output=True, text=True, timeout=500)
    if made.returncode == NOT_HERE:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    return shlex.split(made.stdout)


def run(python: list[str], script: str, result: Path, *arguments: str) -> tuple[str, Arrays]:
    """What `script` prints, and the arrays that it writes to `result`."""
    done = subprocess.run(
        [*python, "-c", script, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), tensorfile.loads(result.read_bytes())


@pytest.fixture(scope="module")
def given() -> Arrays:
    return every_codec.given()


@pytest.mark.parametrize("coder", ["numpy", "native"])
def test_every_codec_gives_the_same_bytes(board: list[str], given: Arrays, tmp_path: Path, coder: str) -> None:
    arm = every_codec.through(board, {**ENVIRONMENT, "EDGEKIT_CODER": coder}, given, tmp_path)
    every_codec.check_equal(arm, given, tmp_path)


def export(path: Path, dataset: Dataset, norm: str) -> Bundle:
    """For the Jetson Nano: 4 groups, 4 bits, entropy coded, batches of 32."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for module in network.modules():
        # At its first values some gradients vanish by symmetry, and nothing is learned of their weights.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    settle_norms(network, torch.from_numpy(normalised(dataset.train_images[:256], dataset)))
    return build_bundle(
        str(path),
        Network(network, "own", "6"),
        CalibrationImages(dataset.train_images[:256], dataset.mean, dataset.std, 10),
        Coding(feature_codec("sgq", {"groups": 4, "bits": 4, "coding": "context"})),
        BoardSettings("jetson-nano", norm),
    )


def normalised(pictures: np.ndarray, dataset: Dataset) -> np.ndarray:
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (dataset.mean, dataset.std))
    return np.asarray((pictures / 255 - mean) / std, dtype=np.float32)


@pytest.mark.parametrize("norm", NORMS)
def test_codes_bytes_and_learned_weights_are_those_of_the_host(
    board: list[str], tmp_path: Path, digits: Dataset, rng: np.random.Generator, norm: str
) -> None:
    bundle = export(tmp_path / "bundle", digits, norm)
    # Not a multiple of 32, so that the static graph gets a batch that must be filled up.
    images = normalised(digits.test_images[:100], digits)
    gradient = 1e-2 * rng.standard_normal((32, *bundle.feature_shape), dtype=np.float32)
    tensorfile.write(str(tmp_path / "given"), {"images": images, "gradient": gradient})

    def step(python: list[str], name: str) -> tuple[str, Arrays]:
        return run(python, STEP, tmp_path / name, bundle.path, str(tmp_path / "given"), str(tmp_path / name))

    (versions, arm), (_, host) = step(board, "arm"), step([sys.executable], "host")
    assert versions.startswith("aarch64 ")
    assert arm.keys() == host.keys()
    exact = [name for name in host if name.split()[-1] in ("codes", "symbols", "bytes")]
    assert len(exact) == 2 * 3 * 4
    assert [name for name in exact if arm[name].tobytes() != host[name].tobytes()] == []
    codes = [[host[f"{when} {i} codes"] for i in range(0, 100, 32)] for when in ("exported", "learned")]
    first, learned = map(np.concatenate, codes)
    assert len(np.unique(first)) > 12 and (first != learned).mean() > 0.001
    weights = bundle.arrays("front.safetensors")
    trained = {name.partition(".")[2] for name in host if name.startswith("gradient.")}
    assert trained <= weights.keys() and len(trained) >= 4
    for name, weight in weights.items():
        now = host["weight." + name]
        assert name not in trained or np.abs(now - weight).max() > 1e-4, f"{name} hardly learned"
        np.testing.assert_allclose(arm["weight." + name], now, rtol=0, atol=1e-5, err_msg=name)


def test_a_device_of_another_processor_trains(board: list[str], tmp_path: Path, digits: Dataset) -> None:
    """Against `edgekit serve` of this machine."""
    bundle = export(tmp_path / "bundle", digits, "batch")
    # Where scikit-learn is not installed, digits are read from a copy of its file.
    data = str(Path(sklearn.__file__).parent / "datasets" / "data")
    serve = ["edgekit", "serve", bundle.path, "--listen", "127.0.0.1:0", "--devices", "1"]
    server = start([sys.executable], *serve)
    assert server.stdout is not None
    address = f"127.0.0.1:{json.loads(server.stdout.readline())['port']}"
    line = ["--server", address, "--dataset", "digits", "--data", data, "--epochs", "2", "--out", str(tmp_path / "out")]
    device = start(board, "edgekit.runtime", bundle.path, *line)
    try:
        out, err = device.communicate(timeout=300)
        assert device.returncode == 0, err
        events = [json.loads(text) for text in out.splitlines()]
        epochs = [event for event in events if event["event"] == "epoch"]
        assert [event["epoch"] for event in epochs] == [1, 2] and events[-1]["event"] == "done"
        assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
        assert epochs[-1]["accuracy"] > 60
        _, err = server.communicate(timeout=300)
        assert server.returncode == 0, err
    finally:
        for process in (device, server):
            process.kill()
            process.communicate()
    first = bundle.arrays("front.safetensors")
    trained = tensorfile.loads((tmp_path / "out" / "front.safetensors").read_bytes())
    assert trained.keys() == first.keys()
    assert any(not np.array_equal(trained[name], first[name]) for name in first)


def start(python: list[str], module: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*python, "-m", module, *arguments, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip

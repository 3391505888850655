"""Another processor: a device on an emulated Cortex-A57, the Jetson Nano's core, beside one on this machine."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

import edgekit
from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import FEATURES, GRADIENTS, UPDATES, feature_codec, gradient_codec
from edgekit.data.base import Dataset
from edgekit.export.build import NORMS, build_bundle
from edgekit.export.fold import settle_norms
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network

# The board takes 15 s to set up, and more where Debian or the package index is far.
pytestmark = pytest.mark.timeout(1200)

BOARD = Path(__file__).parent / "arm64_board.py"
#: The exit code of BOARD where this machine cannot have one.
NOT_HERE = 75
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parent.parent), "OMP_NUM_THREADS": "1"}

#: Every setting that changes what is computed or written.
FEATURE_CODECS: list[tuple[str, dict[str, Any]]] = [
    ("raw", {}), ("uniform", {"bits": 4}), ("uniform", {"bits": 3}), ("slicing", {}), ("topk", {}),
    ("product", {"groups": 4}), ("sgq", {"groups": 4}), ("sgq", {"groups": 4, "weighted": True}),
    ("sgq", {"groups": 4, "bits": 3}), ("sgq", {"groups": 4, "coding": "context"}),
]  # fmt: skip
GRADIENT_CODECS = [
    ("raw", {}), ("stochastic", {}), ("ternary", {}), ("sparse", {}), ("sparse", {"step": 1}), ("vq", {"groups": 4}),
    ("vq", {"groups": 4, "exact": False}), ("residual", {}), ("sampled", {}),
]  # fmt: skip
#: Packs matrix products of floats, whose last bits are each processor's own: only what it makes of bytes is compared.
BY_PRODUCTS = ("dct", {"zone": 1})
UPDATE_CODECS: list[tuple[str, dict[str, Any]]] = [("fedavg", {}), ("quantised", {}), ("quantised", {"step": 1})]

#: Codes, gradients and updates through every codec, to bytes and back.
CODECS = """
import json
import sys
import numpy as np
from edgekit import tensorfile
from edgekit.codecs.registry import feature_codec, gradient_codec, update_codec
from edgekit.codecs.updates.feedback import ErrorFeedback

given, result, features, gradients, products, updates = sys.argv[1:]
with open(given, "rb") as file:
    given = tensorfile.loads(file.read())
arrays = {}
for number, (codec_id, config) in enumerate(json.loads(features)):
    codec = feature_codec(codec_id, config)
    prefix = "tables.{}.".format(number)
    tables = {name[len(prefix) :]: array for name, array in given.items() if name.startswith(prefix)}
    sender, receiver = codec.stream(), codec.stream()
    for batch, feature in enumerate(given["features"]):
        codes = codec.quantize(feature[:, codec.order(feature.shape[1], tables)], tables)
        payload = sender.pack(codes)
        symbols, _ = receiver.unpack(payload, feature.shape)
        where = "{!r} {} ".format(codec, batch)
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)
        arrays.update({where + "codes " + name: array for name, array in codes.items()})
        arrays.update({where + "symbols " + name: array for name, array in symbols.items()})
        arrays[where + "feature"] = codec.dequantize(symbols, tables)
        sender.update(codes)
        receiver.update(symbols)
    moves = given.get("moves.{}".format(number))
    if moves is not None:
        arrays["{!r} tables".format(codec)] = codec.patch(tables, moves.tobytes())["codebook"]
for codec_id, config in json.loads(gradients):
    codec = gradient_codec(codec_id, config)
    for masked in (False, True):
        mask = given["mask"].astype(bool) if masked else None
        payload = codec.pack(given["gradient"], mask, np.random.Generator(np.random.PCG64(1)))
        where = "{!r} masked {} ".format(codec, masked)
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)
        arrays[where + "gradient"] = codec.unpack(payload, given["gradient"].shape, mask)
codec_id, config = json.loads(products)
arrays["by products"] = gradient_codec(codec_id, config).unpack(
    given["products"].tobytes(), given["gradient"].shape, None
)
update = {name: given["update." + name] for name in ("weight", "bias", "scale")}
for codec_id, config in json.loads(updates):
    feedback = ErrorFeedback(update_codec(codec_id, config))
    for time in range(2):
        payload, arrives = feedback.send(update, np.random.Generator(np.random.PCG64(1)))
        where = "{!r} time {} ".format(feedback.codec, time)
        arrays[where + "bytes"] = np.frombuffer(payload, dtype=np.uint8)
        arrays.update({where + "update " + name: array for name, array in arrives.items()})
tensorfile.write(result, arrays)
"""

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


def test_every_codec_gives_the_same_bytes(board: list[str], tmp_path: Path, rng: np.random.Generator) -> None:
    assert {codec_id for codec_id, _ in FEATURE_CODECS} == set(FEATURES)
    assert {codec_id for codec_id, _ in [*GRADIENT_CODECS, BY_PRODUCTS]} == set(GRADIENTS)
    assert {codec_id for codec_id, _ in UPDATE_CODECS} == set(UPDATES)
    features = rng.standard_normal((3, 8, 16, 6, 5)).clip(0).astype(np.float32)
    gradient = (1e-3 * rng.standard_normal((8, 16, 6, 5))).astype(np.float32)
    products = gradient_codec(*BY_PRODUCTS).pack(gradient, None, rng)
    given = {"features": features, "gradient": gradient, "mask": features[0] > 0}
    given["products"] = np.frombuffer(products, dtype=np.uint8)
    shapes = {"weight": (32, 16, 3, 3), "bias": (32,), "scale": ()}
    given.update({f"update.{name}": np.float32(rng.laplace(size=shape)) for name, shape in shapes.items()})
    for number, (codec_id, config) in enumerate(FEATURE_CODECS):
        significance = rng.random(16).astype(np.float32) if config.get("weighted") else None
        codec = feature_codec(codec_id, config)
        tables = codec.calibrate(features[0], 0, significance)
        given.update({f"tables.{number}.{name}": array for name, array in tables.items()})
        if "codebook" in tables:
            codebook = tables["codebook"] + np.float32(0.2 * rng.standard_normal(tables["codebook"].shape))
            moves = codec.diff(tables, {**tables, "codebook": codebook}, 0.1)
            given[f"moves.{number}"] = np.frombuffer(moves, dtype=np.uint8)
    tensorfile.write(str(tmp_path / "given"), given)
    lists = [json.dumps(each) for each in (FEATURE_CODECS, GRADIENT_CODECS, BY_PRODUCTS, UPDATE_CODECS)]

    def through(python: list[str], name: str) -> Arrays:
        return run(python, CODECS, tmp_path / name, str(tmp_path / "given"), str(tmp_path / name), *lists)[1]

    arm, host = through(board, "arm"), through([sys.executable], "host")
    assert arm.keys() == host.keys() and len(arm) > 150
    close, exact = arm.pop("by products"), host.pop("by products")
    np.testing.assert_allclose(close, exact, atol=1e-6 * np.abs(exact).max())
    assert [name for name in host if arm[name].tobytes() != host[name].tobytes()] == []
    integers = [name for name in host if " codes " in name and host[name].dtype == np.int32]
    assert all(np.array_equal(arm[name], host[name.replace(" codes ", " symbols ")]) for name in integers)


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

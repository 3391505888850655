"""A whole training run through the TensorRT backend, on emulators: real server and device processes, digits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network

EPOCHS = 5


def environment(engines: Path) -> dict[str, str]:
    root = str(Path(edgekit.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "EDGEKIT_CACHE": str(engines)}


def start(engines: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(engines),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[("8.2", "jetson-nano"), ("10.3", "jetson-orin-nano")], ids=lambda pair: pair[1])
def board(
    request: Any, tmp_path_factory: pytest.TempPathFactory, digits: Dataset, depthwise_net: type[nn.Module]
) -> tuple[str, Bundle]:
    """A version of TensorRT, and a bundle for the board that has it."""
    version, name = request.param
    torch.manual_seed(0)
    bundle = build_bundle(
        str(tmp_path_factory.mktemp(name) / "bundle"),
        Network(depthwise_net(), "own", "6"),
        CalibrationImages(digits.train_images[:256], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {"groups": 4, "bits": 4})),
        BoardSettings(name, "batch"),
    )
    return version, bundle


def train(bundle: Bundle, folder: Path, *device: str) -> tuple[list[dict[str, Any]], str]:
    """The epochs that one device makes against a server of its own, and what it says; both must end well."""
    server = start(folder, "edgekit", "serve", bundle.path, "--listen", "127.0.0.1:0", "--json", "--devices", "1")
    assert server.stdout is not None
    port = json.loads(server.stdout.readline())["port"]
    line = [bundle.path, "--server", f"127.0.0.1:{port}", "--epochs", str(EPOCHS), "--limit", "800", "--json"]
    process = start(folder / "engines", *device, *line)
    try:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        _, said = server.communicate(timeout=300)
        assert server.returncode == 0, said
    finally:
        for each in (process, server):
            each.kill()
            each.communicate()
    return [event for event in map(json.loads, out.splitlines()) if event["event"] == "epoch"], err


def apart(ours: str, theirs: str) -> tuple[list[float], list[int]]:
    """For each test of two runs, the share of codes that differ, and how many images came out as another class.

    An image whose codes are the same must come out as the same class.
    """
    (codes, classes), (other_codes, other_classes) = (
        (found["codes"].reshape(EPOCHS, len(found["classes"]) // EPOCHS, -1), found["classes"].reshape(EPOCHS, -1))
        for found in map(np.load, (ours, theirs))
    )
    differ, otherwise = codes != other_codes, classes != other_classes
    assert not otherwise[~differ.any(axis=2)].any()
    return differ.mean(axis=(1, 2)).tolist(), otherwise.sum(axis=1).tolist()


def test_a_training_run_ends_where_onnx_runtime_ends(board: tuple[str, Bundle], tmp_path: Path) -> None:
    version, bundle = board
    record, beside = tmp_path / "record.json", tmp_path / "twin.json"
    emulated = ["tests.device.tensorrt.process", version, str(record)]
    epochs, said = train(bundle, tmp_path, *emulated, "--backend", "tensorrt")
    twin, _ = train(bundle, tmp_path, "tests.device.tensorrt.process", "none", str(beside))
    assert len(epochs) == len(twin) == EPOCHS and epochs[-1]["accuracy"] > 70
    # The graphs that learn are the same, in the same engine: so both tests of an epoch are of the same weights.
    assert [epoch["loss"] for epoch in epochs] == [epoch["loss"] for epoch in twin]
    share, otherwise = apart(f"{record}.npz", f"{beside}.npz")
    # float16 moves about 0.1 % of the codes, one of an image's 256 in a quarter of the images. One code moves a logit
    # by 0.05, and the two largest logits are 1.0 apart, both in the median: so only near ties come out otherwise.
    assert min(share) > 0 and max(share) <= 0.003, share
    assert max(otherwise) <= 5 and otherwise[-1] <= 3, otherwise
    told = json.loads(record.read_text())
    assert told["misused"] == [] and told["left"] == 0
    # Built once, in the board's precision; refitted when it is opened and for every evaluation.
    assert told["build"] == 1 and told["refit"] == 1 + EPOCHS and told["context"] == 2 + EPOCHS
    assert "building in float16" in said
    # A second process finds the engine that the first one kept.
    measure = (bundle.path, "--backend", "tensorrt", "--dataset", "golden", "--measure", "0.1")
    _, said = (again := start(tmp_path / "engines", *emulated, *measure)).communicate(timeout=300)
    assert again.returncode == 0 and "building" not in said, said
    assert json.loads(record.read_text())["build"] == 0

"""A small bundle, and a way to put another manifest into it."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit import tensorfile
from edgekit.bundle import MANIFEST, GraphSpec, write_bundle
from edgekit.tensors import TensorSpec

IMAGE = TensorSpec("image", "float32", (-1, 3, 8, 8))
FEATURE = TensorSpec("feature", "float32", (-1, 4, 2, 2))
STATISTICS = (TensorSpec("mean_1", "float32", (4,)), TensorSpec("var_1", "float32", (4,)))
WEIGHT = TensorSpec("conv.weight", "float32", (4, 3, 3, 3))
CODES = TensorSpec("codes", "int32", (-1, 2, 2, 2))
SPECS = {
    "front": GraphSpec("front.onnx", (IMAGE,), (), (WEIGHT,), (CODES,), (WEIGHT.name,)),
    "front_train": GraphSpec("front_train.onnx", (IMAGE,), (), (WEIGHT,), (CODES, FEATURE, *STATISTICS)),
    "front_grad": GraphSpec(
        "front_grad.onnx", (IMAGE,), (WEIGHT,), (), (TensorSpec("gradient.conv.weight", "float32", (4, 3, 3, 3)),)
    ),
}
TABLES = {"codebook": np.arange(64, dtype=np.float32).reshape(16, 4), "order": np.array([2, 0, 3, 1])}
FILES = {
    **{spec.file: f"the graph {name}".encode() for name, spec in SPECS.items()},
    "tables.safetensors": tensorfile.dumps(TABLES),
    "back_train.pt2": b"a program",
}
CONTENT = {
    "edgekit": "0.1.0",
    "model": {"name": "tiny", "cut": "relu1", "input": [3, 8, 8], "classes": 3, "class_names": ["cat", "dog", "owl"]},
    "feature": [4, 2, 2],
    "feature_tensor": "feature",
    "after_relu": True,
    "codec": {"id": "sgq", "config": {"groups": 2, "bits": 4}},
    "normalise": {"mean": [0.5, 0.25, 0], "std": [1, 0.5, 0.25]},
    "device": {"name": "cpu"},
    "norm": "batch",
    "folds": [{"convolution": "conv", "norm": "bn", "epsilon": 1e-5}],
    "batch_norms": [
        {
            "running_mean": "bn.running_mean",
            "running_var": "bn.running_var",
            "momentum": 0.1,
            "batch_mean": "mean_1",
            "batch_var": "var_1",
            "positions": 16,
        }
    ],
    "graphs": {name: spec.to_json() for name, spec in SPECS.items()},
}


@pytest.fixture
def specs():
    return SPECS


@pytest.fixture
def tables():
    return TABLES


@pytest.fixture
def files():
    return dict(FILES)


@pytest.fixture
def content():
    """The manifest, less what `write_bundle` adds."""
    return dict(CONTENT)


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(str(tmp_path / "bundle"), CONTENT, FILES)


@pytest.fixture
def full(bundle):
    """The manifest of `bundle`."""
    return json.loads(Path(bundle.path, MANIFEST).read_bytes())


@pytest.fixture
def rewrite(bundle):
    """Puts another manifest into `bundle`: bytes, or what becomes JSON."""

    def put(manifest):
        Path(bundle.path, MANIFEST).write_bytes(
            manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        )

    return put

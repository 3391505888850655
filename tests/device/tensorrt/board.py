"""What the tests of the TensorRT backend share: an emulated board, a graph with its weights, and what it must give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays
from edgekit.runtime.backends.onnxruntime import OnnxRuntime
from edgekit.runtime.backends.tensorrt.backend import TensorRt
from edgekit.tensors import TensorSpec
from tests.device.tensorrt.cudart_emulator import Library

RNG = np.random.default_rng(0)
CONSTANTS = {
    "weight": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bias": RNG.normal(size=4).astype(np.float32),
    "mix": RNG.normal(size=(4, 4)).astype(np.float32),
}
BOOK = RNG.normal(size=(8, 4)).astype(np.float32)
GRAPH = GraphSpec(
    "front.onnx",
    (TensorSpec("x", "float32", (3, 3, 5, 5)),),
    (TensorSpec("book", "float32", (8, 4)),),
    tuple(TensorSpec(name, "float32", array.shape) for name, array in CONSTANTS.items()),
    (TensorSpec("feature", "float32", (3, 4)), TensorSpec("codes", "int32", (3,))),
)
HALF = {"name": "board", "target": {"precision": "float16"}}
X = (RNG.normal(size=(3, 3, 5, 5)) + 3 * RNG.normal(size=(3, 3, 1, 1))).astype(np.float32)


def model(mix: str = "Gemm", batch: Any = 3) -> bytes:
    """The feature of an image, and the codeword with the largest product with it. "mix" has transB=0."""
    mixed = {
        "Gemm": [helper.make_node("Gemm", ["flat", "mix", "bias2"], ["feature"])],
        "MatMul": [helper.make_node("MatMul", ["flat", "mix"], ["feature"])],
        "twice": [
            helper.make_node("Add", ["mix", "mix"], ["two"]),
            helper.make_node("MatMul", ["flat", "two"], ["feature"]),
        ],
    }
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["conv"], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        *mixed[mix],
        helper.make_node("Gemm", ["feature", "book"], ["score"], transB=1),
        helper.make_node("ArgMax", ["score"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["codes"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "front",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 5, 5]),
            helper.make_tensor_value_info("book", TensorProto.FLOAT, [8, 4]),
        ],
        [
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, [batch, 4]),
            helper.make_tensor_value_info("codes", TensorProto.INT32, [batch]),
        ],
        [
            *(numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()),
            numpy_helper.from_array(np.ones(4, np.float32), "bias2"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return bytes(made.SerializeToString())


class Board(NamedTuple):
    """An emulated board: the module `tensorrt`, and the library libcudart."""

    trt: Any
    cuda: Library
    version: str
    engines: Path

    def files(self) -> list[Path]:
        return sorted(self.engines.iterdir()) if self.engines.exists() else []


Maker = Callable[..., Board]


def opened(**changes: Any) -> TensorRt:
    backend = TensorRt(model(), GRAPH, **changes)
    backend.set_weights({"book": BOOK})
    return backend


def expected(constants: Arrays | None = None, x: np.ndarray = X, book: np.ndarray = BOOK) -> Arrays:
    twin = OnnxRuntime(model(), GRAPH)
    twin.set_weights({"book": book, **(constants or {})})
    return twin.run({"x": x})


def same(got: Arrays, wanted: Arrays) -> None:
    assert np.abs(wanted["feature"] - wanted["feature"][::-1]).max() > 0.1
    np.testing.assert_allclose(got["feature"], wanted["feature"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["codes"], wanted["codes"])

"""What cannot be differentiated is refused by layer and node; and what the gradient graph reads of the forward pass."""

from typing import Any

import numpy as np
import pytest

from edgekit.errors import ExportError
from edgekit.export.gradient import differentiate
from edgekit.export.graph import BATCH, Graph
from edgekit.tensors import TensorSpec


def network() -> tuple[Graph, str]:
    """A graph with an input x (n,4,6,6) in layer "the layer"."""
    graph = Graph()
    graph.in_layer("the layer")
    return graph, graph.input(TensorSpec("x", "float32", (BATCH, 4, 6, 6)))


@pytest.mark.parametrize(
    ("op", "attributes", "saved"),
    [
        *((op, {}, {"y"}) for op in ("Relu", "LeakyRelu", "Elu", "Sigmoid", "HardSigmoid", "Tanh", "Softmax", "Exp",
                                     "Sqrt")),
        ("Erf", {}, {"x"}),
        *((op, {}, set()) for op in ("Neg", "Identity")),
        ("MaxPool", {"kernel_shape": [2, 1], "pads": [1, 0, 0, 0]}, {"x", "y"}),
        ("AveragePool", {"kernel_shape": [1, 1]}, set()),
        ("ReduceMean", {"axes": [1], "keepdims": 1}, set()),
    ],
)  # fmt: skip
def test_what_is_saved(op: str, attributes: dict[str, Any], saved: set[str]) -> None:
    """Activations stay in a weak device's memory until the gradient comes: the output, where it is enough."""
    graph, x = network()
    shape = (BATCH, 1, 6, 6) if op == "ReduceMean" else graph.shape(x)
    (y,) = graph.add(op, [x], shape, outputs=["y"], **attributes)
    gradient = graph.input(TensorSpec("gradient", "float32", shape))
    forward = graph.nodes[0]
    computed = differentiate(graph, y, gradient, [x])[x]
    result = graph.op("Identity", [computed], graph.shape(x))
    _, spec = graph.model([result], given=set(forward.output), file="backward.onnx")
    assert {s.name for s in spec.inputs} == saved | {"gradient"}


def test_inputs_that_need_no_gradient_cost_nothing() -> None:
    graph, x = network()
    w = graph.weight("w", np.ones((2, 4, 3, 3), dtype=np.float32))
    y = graph.op("Conv", [x, w], (BATCH, 2, 4, 4), kernel_shape=[3, 3])
    differentiate(graph, y, graph.input(TensorSpec("gradient", "float32", (BATCH, 2, 4, 4))), [w])
    assert "ConvTranspose" not in {node.op_type for node in graph.nodes}


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "attributes", "message"),
    [
        ("Sinh", [], None, {}, "has no gradient rule; there are gradient rules for Add, .*; cut before this layer"),
        ("Clip", ["w"], None, {}, "has no gradient rule for its input 'w': make that a constant"),
        ("BatchNormalization", ["w4", "w4", "w4", "w4"], None, {}, "no gradient rule for its input 'w4'"),
        ("Elu", [], None, {"alpha": -1.0}, "with alpha -1.0 has no gradient rule"),
        ("MaxPool", [], (BATCH, 4, 3, 3), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, "ceil_mode"),
        ("MaxPool", [], (BATCH, 4, 4, 4), {"kernel_shape": [2, 2], "dilations": [2, 2]}, "with dilations"),
        ("AveragePool", [], (BATCH, 4, 7, 7), {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, "write a Pad before it"),
        ("Conv", ["w4433"], None, {"auto_pad": "SAME_UPPER"}, "auto_pad or ceil_mode, .* write explicit pads"),
        ("ConvTranspose", ["w4433"], (BATCH, 4, 9, 8), {"output_padding": [1, 0]}, "has output_padding .* write a Pad"),
        ("Conv", ["w443"], (BATCH, 4, 6), {}, r"of rank 3 has no gradient rule, only that of images \(n,C,h,w\)"),
        ("MatMul", ["w6"], (BATCH, 4, 6), {}, "of a vector has no gradient rule"),
        ("ReduceMean", [], (1, 4, 6, 6), {"axes": [0]}, "mean over the batch"),
        ("ReduceMean", [], (), {"keepdims": 0}, "mean over the batch"),
        ("Concat", ["x"], None, {"axis": 0}, "works along the batch"),
        ("Slice", [0, 1], (1, 4, 6, 6), {}, "works along the batch"),
        ("Slice", ["computed", 1], None, {}, "takes 'computed', which is computed; .* needs a constant there"),
        ("Gather", [[1, 1]], (BATCH, 2, 6, 6), {"axis": 1}, "or one listed twice"),
        ("Gather", [-1], (BATCH, 6, 6), {"axis": 1}, "for a single index"),
        ("Pad", [[0] * 8], None, {"mode": "reflect"}, "with mode reflect has no gradient rule"),
        (
            "Transpose",
            [],
            (4, BATCH, 6, 6),
            {"perm": [1, 0, 2, 3]},
            r"a dimension of 'y' \[4, -1, 6, 6\] that is not",
        ),
        ("Add", ["w3466"], None, {}, "a fixed number of images against the batch"),
    ],
)
def test_what_has_no_rule_is_refused(
    op: str, inputs: list[Any], shape: tuple[int, ...] | None, attributes: dict[str, Any], message: str
) -> None:
    """By layer and node. An integer k, or a list, is a constant; "w433" is a weight of shape (4,3,3)."""
    graph, x = network()
    names = [x]
    for value in inputs:
        if value == "computed":
            graph.add("Shape", [x], (1,), dtypes=["int64"], outputs=[value], end=1)
            names.append(value)
        elif isinstance(value, str):
            digits = tuple(map(int, value[1:]))
            names.append(value if value in graph.specs else graph.weight(value, np.ones(digits, dtype=np.float32)))
        else:
            scalar = op == "Gather" and isinstance(value, int)
            names.append(graph.constant(np.array(value if scalar else np.atleast_1d(value), dtype=np.int64)))
    if op == "Conv" and shape:  # one dimension less
        names[0] = graph.input(TensorSpec("row", "float32", (BATCH, 4, 8)))
    (y,) = graph.add(op, names, shape if shape is not None else graph.shape(x), outputs=["y"], **attributes)
    wanted = dict.fromkeys(name for name in names if graph.specs[name].dtype == "float32")
    node = graph.nodes[-1].name
    with pytest.raises(ExportError, match=rf"layer 'the layer': operator {op} \(node {node}\) .*{message}"):
        differentiate(graph, y, graph.input(TensorSpec("gradient", "float32", graph.shape(y))), wanted)


def test_a_loss_on_batch_statistics_is_refused() -> None:
    graph, x = network()
    scale, bias = (graph.weight(name, np.ones(4, dtype=np.float32)) for name in ("scale", "bias"))
    zeros = graph.constant(np.zeros(4, dtype=np.float32))
    inputs = [x, scale, bias, zeros, zeros]
    _, mean, _ = graph.add("BatchNormalization", inputs, graph.shape(x), (4,), (4,), training_mode=1)
    with pytest.raises(ExportError, match=r"BatchNormalization .* has a gradient at an output other than its first"):
        differentiate(graph, mean, graph.input(TensorSpec("gradient", "float32", (4,))), [scale])


def test_integers_carry_no_gradient() -> None:
    """x reshaped to a shape that was computed from x itself."""
    graph, x = network()
    size = graph.op("Shape", [x], (4,), dtypes=["int64"])
    y = graph.op("Reshape", [graph.op("Neg", [x], graph.shape(x)), size], graph.shape(x))
    gradient = graph.input(TensorSpec("gradient", "float32", graph.shape(x)))
    computed = differentiate(graph, y, gradient, [x])
    assert [node.op_type for node in graph.nodes[3:]] == ["Reshape", "Neg"]
    assert graph.shape(computed[x]) == (BATCH, 4, 6, 6)

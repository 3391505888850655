"""The portable form of the graphs that learn: it computes the same, in operators that every provider has."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.errors import ExportError
from edgekit.export.graph import Graph
from edgekit.export.graphs import FrontGraphs, front_graphs
from edgekit.export.parity.golden import run_graph
from edgekit.export.portable import make_portable
from edgekit.export.targets.learning_rules import OPERATORS, RULES, check_learning
from edgekit.tensors import TensorSpec

SHAPE = (3, 12, 12)
CODEC = feature_codec("raw", {})


def network() -> nn.Sequential:
    torch.manual_seed(0)
    front = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU6(),
        nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2),
    )  # fmt: skip
    for module in front.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return front


def learned(graphs: FrontGraphs, image: np.ndarray, gradient: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of the training graph and gradients of the weights."""
    train = run_graph(graphs.models["front_train.onnx"], graphs.specs["front_train"], graphs.state, {"image": image})
    feeds = {**train, "image": image, "gradient": gradient}
    grad = run_graph(graphs.models["front_grad.onnx"], graphs.specs["front_grad"], graphs.state, feeds)
    return {**train, **grad}


@pytest.mark.parametrize("n", [2, 7])
def test_it_computes_what_the_form_of_the_cpu_does(n: int, rng: np.random.Generator) -> None:
    front = network()
    cpu = front_graphs(copy.deepcopy(front), SHAPE, CODEC, {})
    portable = front_graphs(front, SHAPE, CODEC, {}, provider="cuda")
    assert cpu.specs == portable.specs and cpu.batch_norms == portable.batch_norms
    image = rng.standard_normal((n, *SHAPE), dtype=np.float32)
    gradient = rng.standard_normal((n, 16, 6, 6), dtype=np.float32)
    expected, got = (learned(graphs, image, gradient) for graphs in (cpu, portable))
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-3 * float(np.abs(array).max()), err_msg=name)
    for key in ("front_train", "front_grad"):
        nodes = onnx.load_from_string(portable.models[f"{key}.onnx"]).graph.node
        assert {node.op_type for node in nodes} <= set(OPERATORS)
        assert not any(a.name == "training_mode" and a.i for node in nodes for a in node.attribute)
        assert not any(a.name == "beta" and a.f == 0 for node in nodes for a in node.attribute)


def norm_graph(portable: bool, x: np.ndarray, channels: int) -> list[np.ndarray]:
    """Output, mean and variance of one batch norm with the statistics of the batch."""
    graph = Graph()
    graph.input(TensorSpec("x", "float32", (-1, *x.shape[1:])))
    one, zero = (graph.constant(np.full(channels, value, dtype=np.float32)) for value in (1, 0))
    graph.in_layer("norm")
    names = graph.add(
        "BatchNormalization", ["x", one, zero, graph.constant(np.full(channels, -0.125, dtype=np.float32)),
        graph.constant(np.full(channels, 0.125, dtype=np.float32))], (-1, *x.shape[1:]), (channels,), (channels,),
        epsilon=1e-5, momentum=0.0, training_mode=1,
    )  # fmt: skip
    if portable:
        make_portable(graph)
    model, spec = graph.model(names, file="norm.onnx")
    outputs = run_graph(model, spec, {}, {"x": x})
    return [outputs[name] for name in names]


def test_the_variance_keeps_its_digits_where_the_mean_is_large(rng: np.random.Generator) -> None:
    x = (1000 + rng.standard_normal((16, 4, 8, 8))).astype(np.float32)
    exact = x.astype(np.float64).var(axis=(0, 2, 3))
    _, mean, variance = norm_graph(True, x, 4)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, exact, rtol=1e-3)
    # A difference of mean squares would not do: in float32 it has lost all digits here.
    squares = np.square(x).mean(axis=(0, 2, 3)) - np.square(x.mean(axis=(0, 2, 3)))
    assert np.abs(squares / exact - 1).max() > 0.01


def test_outputs_keep_their_names_and_shapes(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 3, 5, 5), dtype=np.float32)
    for got, expected in zip(norm_graph(True, x, 3), norm_graph(False, x, 3), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def model(*nodes: onnx.NodeProto, output: int = TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", output, None)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


MAX_POOL = helper.make_node("MaxPool", ["x"], ["y", "indices"], "pool", kernel_shape=[2, 2])
NORM = helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], "bn", training_mode=1)
UNPOOL = helper.make_node("MaxUnpool", ["x", "i"], ["y"], "unpool", kernel_shape=[2, 2])
SIZE = helper.make_node("Size", ["x"], ["y"], "size")


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (MAX_POOL, "rule no-indices: got an output of indices"),
        (NORM, "rule given-statistics: got statistics of the batch, expected given ones"),
        (UNPOOL, "rule operators: got operator MaxUnpool"),
        (SIZE, "rule operators: got operator Size"),
    ],
)
def test_what_providers_lack_is_refused_by_node_and_layer(node: onnx.NodeProto, words: str) -> None:
    given = model(node, output=TensorProto.INT64 if node.op_type == "Size" else TensorProto.FLOAT)
    for name, value in (("s", np.ones(2, dtype=np.float32)), ("i", np.zeros((1, 2, 4, 4), dtype=np.int64))):
        given.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    with pytest.raises(ExportError) as caught:
        check_learning(given, "cuda", {node.name: "features.3"})
    assert str(caught.value).startswith("provider cuda does not take this graph:")
    assert f"{node.op_type} '{node.name}' of layer 'features.3', " in str(caught.value) and words in str(caught.value)


def test_what_providers_have_passes() -> None:
    check_learning(model(helper.make_node("Relu", ["x"], ["y"], "act")), "cuda", {})
    assert {"given-statistics", "no-indices", "operators"} <= set(RULES)

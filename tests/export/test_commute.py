"""An activation goes behind the pooling that alone reads it, and nothing else moves."""

import pytest

from edgekit.export.commute import pool_first
from edgekit.export.graph import BATCH, Graph
from edgekit.tensors import TensorSpec

LARGE, SMALL = (BATCH, 4, 6, 6), (BATCH, 4, 3, 3)


def pooled(operator: str) -> tuple[Graph, str, str]:
    """A graph of `operator` and MaxPool, and the names of their results."""
    graph = Graph()
    x = graph.op("Neg", [graph.input(TensorSpec("x", "float32", LARGE))], LARGE)
    y = graph.op(operator, [x], LARGE)
    return graph, y, graph.op("MaxPool", [y], SMALL, kernel_shape=[2, 2], strides=[2, 2])


def order(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


@pytest.mark.parametrize("operator", ["Relu", "Clip"])
def test_the_activation_comes_last(operator: str) -> None:
    graph, _, result = pooled(operator)
    pool_first(graph, result)
    assert order(graph) == ["Neg", "MaxPool", operator]
    assert [graph.shape(node.output[0]) for node in graph.nodes] == [LARGE, SMALL, SMALL]
    assert graph.nodes[-1].output[0] == result
    graph.model([result], file="pooled.onnx")


def test_what_may_decrease_stays() -> None:
    graph, _, result = pooled("Abs")
    pool_first(graph, result)
    assert order(graph) == ["Neg", "Abs", "MaxPool"]


def test_an_activation_that_others_read_stays() -> None:
    graph, y, result = pooled("Relu")
    graph.op("Sigmoid", [y], LARGE)
    pool_first(graph, result)
    assert order(graph) == ["Neg", "Relu", "MaxPool", "Sigmoid"]


def test_the_result_itself_stays() -> None:
    graph, y, _ = pooled("Relu")
    pool_first(graph, y)
    assert order(graph) == ["Neg", "Relu", "MaxPool"]

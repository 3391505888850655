"""A graph under construction holds no node twice."""

from edgekit.export.graph import BATCH, Graph
from edgekit.tensors import TensorSpec


def test_equal_nodes_are_one() -> None:
    graph = Graph()
    x = graph.input(TensorSpec("x", "float32", (BATCH, 4)))
    once = graph.op("Transpose", [x], (4, BATCH), perm=[1, 0])
    assert graph.op("Transpose", [x], (4, BATCH), perm=[1, 0]) == once
    assert graph.op("Transpose", [x], (BATCH, 4), perm=[0, 1]) != once
    assert graph.op("Cast", [x], (BATCH, 4), to=1) != graph.op("Cast", [x], (BATCH, 4), to=9, dtypes=["bool"])
    assert len(graph.nodes) == 4


def test_a_new_part_computes_for_itself() -> None:
    """So that nothing of the forward pass is kept for the gradients only because both compute it."""
    graph = Graph()
    x = graph.input(TensorSpec("x", "float32", (BATCH, 4)))
    before = graph.op("Neg", [x], (BATCH, 4))
    graph.start_part()
    assert graph.op("Neg", [x], (BATCH, 4)) != before

"""Puts activations behind the pooling that reads them, where there is less to compute."""

from edgekit.export.graph import Graph

#: Never decrease, and have no slope where they are flat: the largest of a window stays so, and ties bring no gradient.
_MONOTONE = ("Relu", "Clip")


def pool_first(graph: Graph, result: str) -> None:
    """Exchanges each activation of `graph` with the MaxPool that alone reads it; `result` is the graph's output.

    Neither the output nor a gradient changes. The activation and its gradient are computed for a window's largest only.
    """
    for place, pool in enumerate(graph.nodes):
        makers = [i for i, node in enumerate(graph.nodes) if pool.input[0] in node.output]
        if pool.op_type != "MaxPool" or not makers or graph.nodes[makers[0]].op_type not in _MONOTONE:
            continue
        between, after, activation = pool.input[0], pool.output[0], graph.nodes[makers[0]]
        if between == result or sum(between in node.input for node in graph.nodes) > 1:
            continue
        pool.input[0], pool.output[0] = activation.input[0], between
        activation.input[0], activation.output[0] = between, after
        graph.specs[between] = graph.specs[between]._replace(shape=graph.shape(after))
        graph.nodes[makers[0] : place + 1] = [*graph.nodes[makers[0] + 1 : place + 1], activation]

"""The portable form of the graphs that learn: for providers other than the CPU's, which lack kernels.

ONNX Runtime's CPU provider alone computes batch norm with the statistics of the batch; CUDA's ignores `training_mode`
(github.com/microsoft/onnxruntime/issues/16867), OpenVINO's refuses it. The portable form computes the statistics by
reductions. It comes after differentiation, so the gradient graph is the same but for what it rewrites there.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from edgekit.export.graph import BATCH, Graph

Rewrite = Callable[[Graph, onnx.NodeProto], None]


def make_portable(graph: Graph) -> None:
    """Rewrites the nodes of `graph` that other providers do not take; the tensors that others read keep their names."""
    nodes, graph.nodes = graph.nodes, []
    graph.start_part()
    for node in nodes:
        graph.in_layer(graph.layers[node.name])
        REWRITES.get(node.op_type, _same)(graph, node)


def _same(graph: Graph, node: onnx.NodeProto) -> None:
    graph.nodes.append(node)


def _batch_norm(graph: Graph, node: onnx.NodeProto) -> None:
    """Mean and biased variance over batch and positions, then batch norm with these as given ones.

    The variance is the mean squared distance to the mean: a difference of mean squares would lose its digits where the
    mean is large. Mean and variance keep their names, which the gradient graph and the device read.
    """
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if not attributes.get("training_mode", 0):
        _same(graph, node)
        return
    x, scale, bias = node.input[:3]
    y, mean, variance = node.output
    shape, channels = graph.shape(x), graph.shape(scale)

    def average(name: str, result: str) -> None:
        # In two steps: one long sum costs ONNX Runtime 1.10 digits.
        if len(shape) > 2:
            name = graph.op("ReduceMean", [name], (BATCH, *channels), axes=list(range(2, len(shape))), keepdims=0)
        graph.add("ReduceMean", [name], channels, outputs=[result], axes=[0], keepdims=0)

    average(x, mean)
    per_channel = (channels[0], *[1] * (len(shape) - 2))
    centre = graph.op("Reshape", [mean, graph.ints(*per_channel)], per_channel)
    distance = graph.op("Sub", [x, centre], shape)
    square = graph.op("Mul", [distance, distance], shape)
    average(square, variance)
    graph.add(
        "BatchNormalization", [x, scale, bias, mean, variance], shape,
        outputs=[y], epsilon=attributes.get("epsilon", 1e-5),
    )  # fmt: skip


def _hard_sigmoid(graph: Graph, node: onnx.NodeProto) -> None:
    """Without beta, by Mul and Clip: OpenVINO's provider (1.24.1) takes a beta of 0 for its default, 0.5."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if attributes.get("beta", 0.5) != 0:
        _same(graph, node)
        return
    alpha, zero, one = (
        graph.constant(np.array(value, dtype=np.float32)) for value in (attributes.get("alpha", 0.2), 0, 1)
    )
    shape = graph.shape(node.input[0])
    scaled = graph.op("Mul", [node.input[0], alpha], shape)
    graph.add("Clip", [scaled, zero, one], shape, outputs=list(node.output))


def _cast(graph: Graph, node: onnx.NodeProto) -> None:
    """The number of values of a tensor by a sum of ones, where it was Size, Div and Cast.

    Size is computed on the CPU, by whatever provider, and all that follows from it.
    """
    divided = _producer(graph, node.input[0], "Div")
    size = divided and _producer(graph, divided.input[0], "Size")
    if not divided or not size:
        _same(graph, node)
        return
    shape = graph.shape(size.input[0])
    one = graph.constant(np.array(1, dtype=np.float32))
    rest = len(shape) - 1
    corner = [graph.ints(*values) for values in ([0] * rest, [1] * rest, range(1, rest + 1))]
    first = graph.op("Slice", [size.input[0], *corner], (BATCH, *[1] * rest))
    first = graph.op("Reshape", [first, graph.ints(-1)], (BATCH,))
    ones = graph.op("Clip", [first, one, one], (BATCH,))
    count = graph.op("ReduceSum", [ones, graph.ints(0)], (1,), keepdims=1)
    each = float(np.prod(shape[1:])) / float(graph.constants[divided.input[1]].item())
    graph.add("Mul", [count, graph.constant(np.full(1, each, dtype=np.float32))], (1,), outputs=list(node.output))


def _producer(graph: Graph, name: str, operator: str) -> onnx.NodeProto | None:
    return next((n for n in graph.nodes if name in n.output and n.op_type == operator), None)


REWRITES: dict[str, Rewrite] = {"BatchNormalization": _batch_norm, "Cast": _cast, "HardSigmoid": _hard_sigmoid}

"""Gradient of BatchNormalization in training mode."""

from typing import Any

import numpy as np
import onnx

from edgekit.errors import ExportError
from edgekit.export.graph import Graph


def batch_norm(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    """Training mode: dx = slope * (g - mean(g) - xhat * mean(g * xhat)) with slope = scale / std, xhat = (x - m) / std.

    Written as slope * g + tilt * x + shift per channel, so that each term is one pass of the operator's inference
    form; sums over the batch come from x itself, not from a centred copy, which saves two passes.
    """
    if not a.get("training_mode"):
        raise ExportError(f"layer '{graph.layers[node.name]}': batch norm on running statistics has no gradient rule")
    x, scale = node.input[0], node.input[1]
    mean, var = node.output[1], node.output[2]
    channels, shape = graph.shape(scale), graph.shape(x)

    def op(name: str, *inputs: str) -> str:
        return graph.op(name, inputs, channels)

    def per_channel_mean(name: str) -> str:
        return graph.op("ReduceMean", [name], channels, axes=[0, 2, 3], keepdims=0)

    epsilon = graph.constant(np.array(a["epsilon"], dtype=np.float32))
    inverse = op("Reciprocal", op("Sqrt", op("Add", var, epsilon)))
    g_mean = per_channel_mean(g)
    gx_mean = per_channel_mean(graph.op("Mul", [g, x], shape))
    gxhat_mean = op("Mul", op("Sub", gx_mean, op("Mul", g_mean, mean)), inverse)
    count = graph.op("Size", [g], (), dtypes=["int64"])
    count = graph.op("Div", [count, graph.ints(channels[0])], (1,), dtypes=["int64"])
    count = graph.op("Cast", [count], (1,), to=onnx.TensorProto.FLOAT)
    grads: list[str | None] = [None] * len(node.input)
    grads[1], grads[2] = op("Mul", gxhat_mean, count), op("Mul", g_mean, count)
    if needed[0]:
        slope = op("Mul", scale, inverse)
        tilt = op("Neg", op("Mul", op("Mul", slope, inverse), gxhat_mean))
        shift = op("Neg", op("Add", op("Mul", slope, g_mean), op("Mul", tilt, mean)))
        zero, one = (graph.constant(np.full(channels, v, dtype=np.float32)) for v in (0.0, 1.0))
        line = graph.op("BatchNormalization", [x, tilt, shift, zero, one], shape, epsilon=0.0)
        scaled = graph.op("BatchNormalization", [g, slope, zero, zero, one], shape, epsilon=0.0)
        grads[0] = graph.op("Add", [scaled, line], shape)
    return grads

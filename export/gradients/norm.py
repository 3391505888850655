"""Gradient rule of BatchNormalization, with the batch's statistics and with given ones."""

import numpy as np
import onnx

from edgekit.export.gradients.step import Step


def batch_norm(step: Step) -> list[str | None]:
    """y = slope * (x - mean) + bias with slope = scale / std, per channel; xhat = (x - mean) / std.

    Given statistics: dx = slope * g. The batch's own: dx = slope * (g - mean(g) - xhat * mean(g * xhat)), written as
    slope * g + tilt * x + shift, so that each term is one pass of the operator's inference form. Sums over the batch
    come from x itself, not from a centred copy, which saves two passes.
    """
    graph, g, x, scale = step.graph, step.g, step.x, step.node.input[1]
    training = step.attributes.get("training_mode", 0)
    mean, var = step.node.output[1:3] if training else step.node.input[3:5]
    channels, shape = graph.shape(scale), graph.shape(x)
    axes = [0, *range(2, len(shape))]
    zero, one = (graph.constant(np.full(channels, v, dtype=np.float32)) for v in (0.0, 1.0))

    def op(name: str, *inputs: str) -> str:
        return graph.op(name, inputs, channels)

    def per_channel_mean(name: str) -> str:
        return graph.op("ReduceMean", [name], channels, axes=axes, keepdims=0)

    def lines(name: str, slope: str, shift: str) -> str:
        return graph.op("BatchNormalization", [name, slope, shift, zero, one], shape, epsilon=0.0)

    inverse = op("Reciprocal", op("Sqrt", op("Add", var, step.scalar(step.attributes.get("epsilon", 1e-5)))))
    slope = op("Mul", scale, inverse)
    grads: list[str | None] = [lines(g, slope, zero) if step.needed[0] else None, None, None]
    if training or step.needed[1] or step.needed[2]:
        g_mean = per_channel_mean(g)
        gx_mean = per_channel_mean(graph.op("Mul", [g, x], shape))
        gxhat_mean = op("Mul", op("Sub", gx_mean, op("Mul", g_mean, mean)), inverse)
        count = graph.op("Size", [g], (), dtypes=["int64"])
        count = graph.op("Div", [count, graph.ints(channels[0])], (1,), dtypes=["int64"])
        count = graph.op("Cast", [count], (1,), to=onnx.TensorProto.FLOAT)
        grads[1:] = [op("Mul", gxhat_mean, count), op("Mul", g_mean, count)]
        if training and grads[0]:
            tilt = op("Neg", op("Mul", op("Mul", slope, inverse), gxhat_mean))
            shift = op("Neg", op("Add", op("Mul", slope, g_mean), op("Mul", tilt, mean)))
            grads[0] = graph.op("Add", [grads[0], lines(x, tilt, shift)], shape)
    return grads

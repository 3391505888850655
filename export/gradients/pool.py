"""Gradient rules of pooling and of means over axes."""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from edgekit.export.gradients.step import Step
from edgekit.export.gradients.window import Window, moved, window_of
from edgekit.export.graph import BATCH


def max_pool(step: Step) -> list[str | None]:
    """The first largest element of a window takes the gradient, as in PyTorch.

    The largest of a window is that of the largest of its rows: the first row that has it takes the gradient, and in the
    row the first column that has it. A product with zeros and ones puts what the columns take into their places.
    """
    graph, window = step.graph, window_of(step, tuple(step.attributes["kernel_shape"]))
    if window.dilations != (1, 1):
        raise step.refuse(f"with dilations {list(window.dilations)} has no gradient rule, only without")
    (_, c, h, w), wo, (kw, across) = step.shape(0), graph.shape(step.y)[3], (window.kernel[1], window.strides[1])
    _, left, _, right = window.pads
    wide = (BATCH, c, h, wo)
    lines = graph.op("MaxPool", [step.x], wide, kernel_shape=[1, kw], strides=[1, across], pads=[0, left, 0, right])
    g = _put_back(step, window, _share_out(step, lines, step.y, step.g, 2, window))
    taken = _share_out(step, step.x, lines, g, 3, window)
    joined = graph.op("Concat", taken, (BATCH, c, h, kw * wo), axis=3) if kw > 1 else taken[0]
    seen = (np.arange(kw)[:, None] + across * np.arange(wo) - left).reshape(-1, 1)
    places = graph.constant((seen == np.arange(w)).astype(np.float32))
    return [graph.op("MatMul", [joined, places], (BATCH, c, h, w))]


def _share_out(step: Step, x: str, largest: str, g: str, axis: int, window: Window) -> list[str]:
    """What each element of a window along `axis` takes of `g`: all, if it is the first of `x` to be the `largest`."""
    graph, shape, taken = step.graph, step.graph.shape(largest), []
    one = axis - 2
    size, stride, before, after = window.kernel[one], window.strides[one], window.pads[one], window.pads[one + 2]
    if before or after:
        edges = [before if i == axis else 0 for i in range(4)] + [after if i == axis else 0 for i in range(4)]
        grown = tuple(n + before + after if i == axis else n for i, n in enumerate(graph.shape(x)))
        x = graph.op("Pad", [x, graph.ints(*edges), step.scalar(-math.inf)], grown)
    for i in range(size - 1):
        bounds = (graph.ints(n) for n in (i, i + (shape[axis] - 1) * stride + 1, axis, stride))
        same = graph.op("Equal", [graph.op("Slice", [x, *bounds], shape), largest], shape, dtypes=["bool"])
        # By Mul and Sub, which ONNX Runtime vectorises; what is left is exactly zero once an element has taken all.
        taken.append(graph.op("Mul", [g, graph.op("Cast", [same], shape, to=onnx.TensorProto.FLOAT)], shape))
        g = graph.op("Sub", [g, taken[-1]], shape)
    return [*taken, g]


def _put_back(step: Step, window: Window, rows: Sequence[str]) -> str:
    """What the rows of all windows take, (n,C,ho,wo) each, added up at their rows of the image (n,C,h,wo)."""
    graph, (_, c, h, _), (*_, ho, wo) = step.graph, step.shape(0), step.graph.shape(step.y)
    stride, strips = window.strides[0], window.strips(step.shape(0))
    shape, parts = (BATCH, c, strips, wo), dict[int, str]()
    for row, (shift, part) in zip(rows, window.rows(), strict=True):
        if -ho < shift < strips:
            row = moved(graph, row, shift, strips)
            parts[part] = graph.op("Add", [parts[part], row], shape) if part in parts else row
    # Rows that no window sees.
    nothing = graph.op("Mul", [next(iter(parts.values())), step.scalar(0.0)], shape)
    apart = [
        graph.op("Reshape", [parts.get(part, nothing), graph.ints(-1, c, strips, 1, wo)], (BATCH, c, strips, 1, wo))
        for part in range(stride)
    ]
    joined = graph.op("Concat", apart, (BATCH, c, strips, stride, wo), axis=3) if stride > 1 else apart[0]
    image = graph.op("Reshape", [joined, graph.ints(-1, c, strips * stride, wo)], (BATCH, c, strips * stride, wo))
    if strips * stride == h:
        return image
    return graph.op("Slice", [image, graph.ints(0), graph.ints(h), graph.ints(2)], (BATCH, c, h, wo))


def average_pool(step: Step) -> list[str | None]:
    window = window_of(step, tuple(step.attributes["kernel_shape"]))
    if any(window.pads) or window.dilations != (1, 1):
        raise step.refuse("with pads or dilations has no gradient rule: write a Pad before it")
    graph, shape, (_, c, h, w) = step.graph, step.shape(0), step.graph.shape(step.y)
    (kh, kw), share = window.kernel, 1 / math.prod(window.kernel)
    if window.kernel != window.strides:
        return [_spread(step, window, step.g, np.full((c, 1, kh, kw), share))]
    apart = graph.op("Reshape", [step.g, graph.ints(-1, c, h, 1, w, 1)], (BATCH, c, h, 1, w, 1))
    shares = graph.constant(np.full((1, 1, 1, kh, 1, kw), share, dtype=np.float32))
    blocks = graph.op("Mul", [apart, shares], (BATCH, c, h, kh, w, kw))
    covered = graph.op("Reshape", [blocks, graph.ints(-1, c, h * kh, w * kw)], (BATCH, c, h * kh, w * kw))
    rest = window.rest(shape, (h, w))
    return [graph.op("Pad", [covered, graph.ints(0, 0, 0, 0, 0, 0, *rest)], shape) if any(rest) else covered]


def _spread(step: Step, window: Window, g: str, kernels: np.ndarray) -> str:
    """`g` at the positions of `window`, times `kernels` (.., 1, kh, kw), added up where windows overlap."""
    shape = step.shape(0)
    rest = list(window.rest(shape, step.graph.shape(step.y)))
    weights = step.graph.constant(kernels.astype(np.float32))
    return step.graph.op(
        "ConvTranspose", [g, weights], shape, **window.attributes(), output_padding=rest, group=shape[1]
    )


def global_average_pool(step: Step) -> list[str | None]:
    return [_mean_over(step, range(2, len(step.shape(0))))]


def reduce_mean(step: Step) -> list[str | None]:
    rank = len(step.shape(0))
    return [_mean_over(step, [axis % rank for axis in step.attributes.get("axes", range(rank))])]


def _mean_over(step: Step, axes: Sequence[int]) -> str:
    graph, shape = step.graph, step.shape(0)
    lengths = [shape[axis] for axis in axes]
    if BATCH in lengths:
        raise step.refuse("is a mean over the batch, which has no gradient rule: a front half treats images one by one")
    share = step.op("Mul", step.g, step.scalar(1 / math.prod(lengths)))
    ones = tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    if graph.shape(share) != ones:
        share = graph.op("Reshape", [share, graph.ints(*ones)], ones)
    # Expand keeps an axis whose target is 1: here the batch.
    return graph.op("Expand", [share, graph.ints(*(1 if length == BATCH else length for length in shape))], shape)

"""Gradient rules of pooling and of means over axes."""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from edgekit.export.gradients.step import Step
from edgekit.export.gradients.window import Window, pad, window_of
from edgekit.export.graph import BATCH


def max_pool(step: Step) -> list[str | None]:
    """The first largest element of a window takes the gradient, as in PyTorch."""
    window = window_of(step, tuple(step.attributes["kernel_shape"]))
    if window.dilations != (1, 1):
        raise step.refuse(f"with dilations {list(window.dilations)} has no gradient rule, only without")
    beside = window.kernel == window.strides and not any(window.pads)
    return [_winners(step, window) if beside else _share_out(step, window)]


def _winners(step: Step, window: Window) -> str:
    """For windows side by side without padding: each pixel is compared with the largest of its window.

    Of several largest the first takes all: each gets its place in the window as a number, and the highest number wins.
    """
    graph, (h, w) = step.graph, step.shape(0)[2:]
    (kh, kw), small = window.kernel, graph.shape(step.y)
    shape = (*small[:2], small[2] * kh, small[3] * kw)
    inside = [graph.ints(0, 0), graph.ints(*shape[2:]), graph.ints(2, 3)]
    x = step.x if shape[2:] == (h, w) else graph.op("Slice", [step.x, *inside], shape)

    def grown(name: str) -> str:
        scales = graph.constant(np.array([1, 1, kh, kw], dtype=np.float32))
        nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return graph.op("Resize", [name, "", scales], shape, **nearest)

    def where_equal(left: str, right: str) -> str:
        held = graph.op("Equal", [left, right], shape, dtypes=["bool"])
        return graph.op("Cast", [held], shape, to=onnx.TensorProto.FLOAT)

    places = np.arange(kh * kw, 0, -1, dtype=np.float32).reshape(kh, kw)
    numbers = graph.constant(np.tile(places, small[2:]))
    largest = graph.op("Mul", [where_equal(x, grown(step.y)), numbers], shape)
    first = graph.op("MaxPool", [largest], small, kernel_shape=[kh, kw], strides=[kh, kw])
    spread = graph.op("Mul", [grown(step.g), where_equal(largest, grown(first))], shape)
    rest = (h - shape[2], w - shape[3])
    return graph.op("Pad", [spread, graph.ints(0, 0, 0, 0, 0, 0, *rest)], step.shape(0)) if any(rest) else spread


def _share_out(step: Step, window: Window) -> str:
    """For any windows: each element of the kernel (tap) takes the gradient of the windows whose largest value it holds.

    The first such tap takes all. A ConvTranspose with one-hot kernels then adds up the taps at their places.
    """
    graph, out, left, won = step.graph, step.graph.shape(step.y), step.g, []
    padded = pad(graph, step.x, window, -math.inf)
    (kh, kw), channels = window.kernel, out[1]
    for i in range(kh):
        for j in range(kw):
            # By Mul and Sub, which ONNX Runtime vectorises; what is left is exactly zero once a tap has taken all.
            won.append(step.op("Mul", left, step.mask(("Equal", window.tap(graph, padded, out, i, j), step.y))))
            left = step.op("Sub", left, won[-1])
    n, plane = kh * kw, (BATCH, channels, 1, *out[2:])
    stacked = graph.op(
        "Concat", [graph.with_axes("Unsqueeze", name, plane, (2,)) for name in won], (*plane[:2], n, *out[2:]), axis=2
    )
    flat = graph.op("Reshape", [stacked, graph.ints(-1, channels * n, *out[2:])], (BATCH, channels * n, *out[2:]))
    return _spread(step, window, flat, np.tile(np.eye(n).reshape(n, 1, kh, kw), (channels, 1, 1, 1)))


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

"""Lowerings of pooling over windows and over axes.

An AveragePool never has pads of its own, which converters treat in different ways: a Pad comes before it.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from edgekit.export.lowerings.call import Call, Lowering, pair
from edgekit.export.lowerings.resample import pad_zeros, resampled


def _pads(c: Call, a: SimpleNamespace, kernel: list[int], strides: list[int]) -> list[int]:
    """Pads as ONNX lists them; with ceil_mode, the far edges get what the last window covers beyond the image."""
    near = pair(a.padding)
    size, out = c.images(a.x)[2:], c.shape[2:]
    reach = [(o - 1) * s + k - n for o, s, k, n in zip(out, strides, kernel, near, strict=True)]
    return near + [max(r - d, n) for r, d, n in zip(reach, size, near, strict=True)]


def max_pool(c: Call, a: SimpleNamespace) -> str:
    kernel = pair(a.kernel_size)
    strides = pair(a.stride or kernel)
    if pair(a.dilation) != [1, 1]:
        raise c.refused(f"with dilation={pair(a.dilation)}", "use dilation=1")
    return c.op("MaxPool", [a.x], kernel_shape=kernel, strides=strides, pads=_pads(c, a, kernel, strides))


def avg_pool(c: Call, a: SimpleNamespace) -> str:
    """Pad, AveragePool, and a product with a constant where PyTorch divides by less than the whole window."""
    kernel = pair(a.kernel_size)
    strides = pair(a.stride or kernel)
    pads = _pads(c, a, kernel, strides)
    y = _average(c, pad_zeros(c, a.x, pads), kernel, strides)
    ones = torch.ones(1, 1, *c.graph.shape(a.x)[2:], dtype=torch.float64)
    rest = (a.padding, a.ceil_mode, a.count_include_pad, a.divisor_override)
    wanted = torch.ops.aten.avg_pool2d(ones, kernel, strides, *rest)
    around = torch.nn.functional.pad(ones, (pads[1], pads[3], pads[0], pads[2]))
    factor = (wanted / torch.ops.aten.avg_pool2d(around, kernel, strides)).numpy().astype(np.float32)
    return y if (factor == 1).all() else c.op("Mul", [y, c.graph.constant(factor)])


def _average(c: Call, x: str, kernel: list[int], strides: list[int]) -> str:
    return c.op("AveragePool", [x], kernel_shape=kernel, strides=strides, pads=[0, 0, 0, 0])


def _divided(c: Call, x: str) -> list[int] | None:
    """The kernel whose windows, side by side, cover x exactly; None if there is none."""
    sizes = list(zip(c.images(x)[2:], c.shape[2:], strict=True))
    return None if any(size % out for size, out in sizes) else [size // out for size, out in sizes]


def adaptive_avg_pool(c: Call, a: SimpleNamespace) -> str:
    kernel = _divided(c, a.x)
    if kernel == [1, 1]:
        return str(a.x)
    if c.shape[2:] == (1, 1):
        return c.op("GlobalAveragePool", [a.x])
    if kernel:
        return _average(c, a.x, kernel, kernel)
    return resampled(c, a.x, lambda line, axis: torch.ops.aten.adaptive_avg_pool2d(line, [1, c.shape[axis]]))


def adaptive_max_pool(c: Call, a: SimpleNamespace) -> list[str]:
    kernel = _divided(c, a.x)
    if not kernel:
        size = f"from {list(c.graph.shape(a.x)[2:])} to {list(c.shape[2:])}"
        raise c.refused(size, "choose an output size that divides the input's, or use adaptive average pooling")
    if kernel == [1, 1]:
        return [a.x]
    return [c.op("MaxPool", [a.x], kernel_shape=kernel, strides=kernel, pads=[0, 0, 0, 0])]


def mean(c: Call, a: SimpleNamespace) -> str:
    return c.op("ReduceMean", [a.x], axes=c.axes(a.x, a.dim), keepdims=int(a.keepdim))


def total(c: Call, a: SimpleNamespace) -> str:
    """The sum, as a mean times a number: one operator less for gradient rules and converters."""
    count = np.prod([c.graph.shape(a.x)[i] for i in c.axes(a.x, a.dim)])
    return c.op("Mul", [mean(c, a), c.scalar(float(count))])


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.max_pool2d.default: max_pool,
    _aten.avg_pool2d.default: avg_pool,
    _aten.adaptive_avg_pool2d.default: adaptive_avg_pool,
    _aten.adaptive_max_pool2d.default: adaptive_max_pool,
    _aten.mean.dim: mean,
    _aten.sum.dim_IntList: total,
}

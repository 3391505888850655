"""Lowerings of padding and of resampling height and width.

An operator that is linear, and acts on rows and on columns independently, becomes two products with constant matrices:
adaptive average pooling to a size that does not divide, scaling, reflecting pads. Each matrix is what PyTorch's
operator gives for the identity matrix.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from edgekit.export.graph import BATCH
from edgekit.export.lowerings.call import Call, Lowering

#: (lines (1,size,1,size), axis of x that they stand for) -> the lines resampled (1,size,1,new size)
Resample = Callable[[torch.Tensor, int], torch.Tensor]


def resampled(c: Call, x: str, apply: Resample) -> str:
    """x with `apply` done along its last two axes, as two products with constant matrices."""
    n, channels, h, w = c.images(x)
    columns, rows = (apply(torch.eye(d).reshape(1, d, 1, d), i).reshape(d, -1).numpy() for i, d in ((3, w), (2, h)))
    x = c.op("MatMul", [x, c.graph.constant(columns)], (n, channels, h, columns.shape[1]))
    return c.op("MatMul", [c.graph.constant(np.ascontiguousarray(rows.T)[None, None]), x])


def pad_zeros(c: Call, x: str, pads: list[int]) -> str:
    """x (n,C,H,W) with zeros around it; `pads` as in ONNX: top, left, bottom, right."""
    if not any(pads):
        return x
    n, channels, h, w = c.graph.shape(x)
    shape = (n, channels, h + pads[0] + pads[2], w + pads[1] + pads[3])
    return c.op("Pad", [x, c.graph.ints(0, 0, *pads[:2], 0, 0, *pads[2:])], shape, mode="constant")


def constant_pad(c: Call, a: SimpleNamespace) -> str:
    """A Pad. PyTorch lists pads from the last axis on; negative ones are cut off by a Slice before."""
    rank = c.rank(a.x)
    # Per axis, from the first.
    near, far = (list(reversed([*a.pad[i::2], *[0] * (rank - len(a.pad) // 2)])) for i in (0, 1))
    x = str(a.x)
    for axis in range(rank):
        if near[axis] < 0 or far[axis] < 0:
            x = c.slice(x, axis, max(-near[axis], 0), c.graph.shape(x)[axis] + min(far[axis], 0))
    if max(near + far) <= 0:
        return x
    around = c.graph.ints(*[max(p, 0) for p in near + far])
    value = [c.scalar(a.value)] if a.value else []
    return c.op("Pad", [x, around, *value], mode="constant")


def padded(c: Call, a: SimpleNamespace) -> str:
    if a.mode == "constant":
        return constant_pad(c, a)
    widths = {3: (*a.pad[:2], 0, 0), 2: (*a.pad[2:4], 0, 0) if len(a.pad) > 2 else (0, 0, 0, 0)}
    return resampled(c, a.x, lambda line, axis: pad(line, widths[axis], mode=a.mode))


def _scaled(mode: str) -> Lowering:
    def lowering(c: Call, a: SimpleNamespace) -> str:
        corners = getattr(a, "align_corners", None)

        def apply(line: torch.Tensor, axis: int) -> torch.Tensor:
            if a.scale_factors:
                scale = (1.0, a.scale_factors[axis - 2])
                return interpolate(line, scale_factor=scale, mode=mode, align_corners=corners)
            return interpolate(line, size=(1, c.shape[axis]), mode=mode, align_corners=corners)

        return resampled(c, a.x, apply)

    return lowering


def repeated(c: Call, a: SimpleNamespace) -> str:
    x, shape = str(a.x), c.graph.shape(a.x)
    if len(a.repeats) != len(shape):
        raise c.refused(f"of {len(shape)} axes into {len(a.repeats)}", "unsqueeze first")
    for axis, times in enumerate(a.repeats):
        if times != 1 and shape[axis] != BATCH:
            shape = (*shape[:axis], shape[axis] * times, *shape[axis + 1 :])
            x = c.op("Concat", [x] * times, shape, axis=axis)
    return x


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.constant_pad_nd.default: constant_pad,
    _aten.pad.default: padded,
    _aten.upsample_nearest2d.vec: _scaled("nearest"),
    _aten.upsample_bilinear2d.vec: _scaled("bilinear"),
    _aten.upsample_bicubic2d.vec: _scaled("bicubic"),
    _aten.repeat.default: repeated,
}

"""Lowerings of operators that reshape, reorder or repeat elements, or do nothing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from edgekit.export.graph import BATCH
from edgekit.export.lowerings.call import Call, Lowering
from edgekit.export.lowerings.pointwise import BROADCASTING


def same(c: Call, a: SimpleNamespace) -> str:
    return str(a.x)


def detach(c: Call, a: SimpleNamespace) -> str:
    if c.training:
        raise c.refused("which stops the gradient", "leave it out, or set requires_grad=False on what shall not learn")
    return str(a.x)


def reshape(c: Call, a: SimpleNamespace) -> str:
    return c.reshape(a.x, c.shape)


def permute(c: Call, a: SimpleNamespace) -> str:
    return c.transpose(a.x, [c.axis(a.x, d) for d in a.dims])


def transpose(c: Call, a: SimpleNamespace) -> str:
    perm = list(range(c.rank(a.x)))
    i, j = c.axis(a.x, a.dim0), c.axis(a.x, a.dim1)
    perm[i], perm[j] = perm[j], perm[i]
    return c.transpose(a.x, perm)


def matrix_transpose(c: Call, a: SimpleNamespace) -> str:
    return c.transpose(a.x, list(reversed(range(c.rank(a.x)))))


def channel_shuffle(c: Call, a: SimpleNamespace) -> str:
    n, channels, h, w = c.images(a.x)
    groups = c.reshape(a.x, (n, a.groups, channels // a.groups, h * w))
    return c.reshape(c.transpose(groups, [0, 2, 1, 3]), c.shape)


def pixel_shuffle(c: Call, a: SimpleNamespace) -> str:
    (n, _, h, w), channels, r = c.images(a.x), c.shape[1], a.upscale_factor
    return c.reshape(c.transpose(c.reshape(a.x, (n, channels, r, r, h, w)), [0, 1, 4, 2, 5, 3]), c.shape)


def pixel_unshuffle(c: Call, a: SimpleNamespace) -> str:
    (n, channels, h, w), r = c.images(a.x), a.downscale_factor
    cells = c.reshape(a.x, (n, channels, h // r, r, w // r, r))
    return c.reshape(c.transpose(cells, [0, 1, 3, 5, 2, 4]), c.shape)


def expand(c: Call, a: SimpleNamespace) -> str:
    """x itself where every reader broadcasts, else its sum with zeros of the full shape."""
    if c.graph.shape(a.x) == c.shape or all(user in BROADCASTING for user in c.users):
        return str(a.x)
    if BATCH in c.shape and BATCH not in c.graph.shape(a.x):
        raise c.refused("of a tensor without a batch to the size of the batch", "add it to a tensor that has one")
    zeros = np.zeros([1 if d == BATCH else d for d in c.shape], dtype=np.float32)
    return c.op("Add", [a.x, c.graph.constant(zeros)])


def copy(c: Call, a: SimpleNamespace) -> str:
    """y in the shape of x, as ``x[...] = y`` assigns it."""
    return expand(c, SimpleNamespace(x=a.src))


_aten = torch.ops.aten
#: What does nothing here: dropout in evaluation mode, copies, conversions to float32 (to others, results are refused).
SAME = frozenset(
    {
        _aten.alias.default,
        _aten.alpha_dropout.default,
        _aten.clone.default,
        _aten.contiguous.default,
        _aten.dropout.default,
        _aten.feature_alpha_dropout.default,
        _aten.feature_dropout.default,
        _aten.lift_fresh_copy.default,
        _aten.to.dtype,
        _aten.to.dtype_layout,
        _aten._to_copy.default,
        _aten.type_as.default,
    }
)
RESHAPES = frozenset(
    {
        _aten.flatten.using_ints,
        _aten.reshape.default,
        _aten.squeeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.unflatten.int,
        _aten._unsafe_view.default,
        _aten.unsqueeze.default,
        _aten.view.default,
    }
)
LOWERINGS: dict[Any, Lowering] = {
    **dict.fromkeys(SAME, same),
    **dict.fromkeys(RESHAPES, reshape),
    _aten.detach.default: detach,
    _aten.permute.default: permute,
    _aten.transpose.int: transpose,
    _aten.t.default: matrix_transpose,
    _aten.channel_shuffle.default: channel_shuffle,
    _aten.pixel_shuffle.default: pixel_shuffle,
    _aten.pixel_unshuffle.default: pixel_unshuffle,
    _aten.expand.default: expand,
    _aten.expand_as.default: expand,
    _aten.copy.default: copy,
}
#: Operators with sizes as arguments, which may be computed from the batch's: the shape of the result is used instead.
SIZED = RESHAPES | {_aten.expand.default, _aten.slice.Tensor}

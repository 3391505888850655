"""Lowerings of operators that cut tensors into pieces, join them, or pick channels by index."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from edgekit.export.lowerings.call import Call, Lowering


def _bounds(c: Call, a: SimpleNamespace) -> tuple[int, int, int]:
    """(axis, start, end), start and end counted from the front and inside the tensor."""
    axis = c.axis(a.x, a.dim)
    size = c.graph.shape(a.x)[axis]
    start, end = (size if v is None else min(max(v + size if v < 0 else v, 0), size) for v in (a.start or 0, a.end))
    return axis, start, max(start, end)


def cut(c: Call, a: SimpleNamespace) -> str:
    if c.shape == c.graph.shape(a.x):
        return str(a.x)
    return c.slice(a.x, *_bounds(c, a), a.step)


def select(c: Call, a: SimpleNamespace) -> str:
    axis = c.axis(a.x, a.dim)
    index = a.index % c.graph.shape(a.x)[axis]
    return c.reshape(c.slice(a.x, axis, index, index + 1), c.shape)


def unbind(c: Call, a: SimpleNamespace) -> list[str]:
    axis = c.axis(a.x, a.dim)
    return [c.reshape(c.slice(a.x, axis, i, i + 1), shape) for i, shape in enumerate(c.shapes)]


def split(c: Call, a: SimpleNamespace) -> list[str]:
    """Any form of split and chunk: the shapes of the pieces say where to cut."""
    axis = c.axis(a.x, a.dim)
    places = accumulate((shape[axis] for shape in c.shapes), initial=0)
    return [c.slice(a.x, axis, start, end) for start, end in pairwise(places)]


def _joined(c: Call, names: Sequence[str], axis: int) -> str:
    return names[0] if len(names) == 1 else c.op("Concat", names, axis=axis)


def concat(c: Call, a: SimpleNamespace) -> str:
    return _joined(c, a.tensors, a.dim % len(c.shape))


def stack(c: Call, a: SimpleNamespace) -> str:
    axis = a.dim % len(c.shape)
    return _joined(c, [c.reshape(name, (*c.shape[:axis], 1, *c.shape[axis + 1 :])) for name in a.tensors], axis)


def _replaced(c: Call, x: str, piece: str, axis: int, start: int, end: int) -> str:
    """`x` with entries `start` to `end` of `axis` replaced by `piece`."""
    size = c.shape[axis]
    around = [(x, 0, start), (piece, 0, end - start), (x, end, size)]
    return _joined(c, [c.slice(name, axis, i, j) for name, i, j in around if i != j], axis)


def slice_scatter(c: Call, a: SimpleNamespace) -> str:
    """x with a slice of it replaced by src, which is how torch.export writes an assignment to a view of x."""
    if c.graph.shape(a.src) == c.shape:
        return str(a.src)
    if a.step != 1:
        raise c.refused(f"with step {a.step}", "compute the pieces and join them with torch.cat")
    return _replaced(c, a.x, a.src, *_bounds(c, a))


def select_scatter(c: Call, a: SimpleNamespace) -> str:
    axis = c.axis(a.x, a.dim)
    index = a.index % c.shape[axis]
    piece = c.reshape(a.src, (*c.shape[:axis], 1, *c.shape[axis + 1 :]))
    return _replaced(c, a.x, piece, axis, index, index + 1)


def _picked(c: Call, x: str, axis: int, index: str) -> str:
    """The channels of `x` that `index` lists: a Gather puts them first, a Slice cuts the others off."""
    if axis != 1 or index not in c.graph.constants or c.graph.constants[index].ndim != 1:
        raise c.refused("other than by a constant list of channels", "index axis 1 by a list of channels")
    channels = c.graph.shape(x)[1]
    picked = c.graph.constants[index].astype(np.int64) % channels
    if len(np.unique(picked)) != len(picked):
        raise c.refused("that takes a channel twice", "use torch.cat or repeat")
    order = np.concatenate([picked, np.setdiff1d(np.arange(channels), picked)])
    if not np.array_equal(order, np.arange(channels)):
        x = c.op("Gather", [x, c.graph.constant(order)], c.graph.shape(x), axis=1)
    return c.slice(x, 1, 0, len(picked))


def index(c: Call, a: SimpleNamespace) -> str:
    given = [(axis, name) for axis, name in enumerate(a.indices) if name is not None]
    if len(given) != 1:
        raise c.refused("by several tensors", "index axis 1 by a list of channels")
    return _picked(c, a.x, *given[0])


def index_select(c: Call, a: SimpleNamespace) -> str:
    return _picked(c, a.x, c.axis(a.x, a.dim), a.index)


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.slice.Tensor: cut,
    _aten.select.int: select,
    _aten.unbind.int: unbind,
    _aten.chunk.default: split,
    _aten.split.Tensor: split,
    _aten.split.sizes: split,
    _aten.split_with_sizes.default: split,
    _aten.cat.default: concat,
    _aten.stack.default: stack,
    _aten.slice_scatter.default: slice_scatter,
    _aten.select_scatter.default: select_scatter,
    _aten.index.Tensor: index,
    _aten.index_select.default: index_select,
}
#: Operators whose constant arguments stay integers; those of all others become float32.
INDEXING = frozenset({_aten.index.Tensor, _aten.index_select.default})

"""Gradient rules of operators that move elements, or leave some out."""

from collections.abc import Mapping, Sequence

import numpy as np

from edgekit.export.gradients.step import Step
from edgekit.export.graph import BATCH


def identity(step: Step) -> list[str | None]:
    return [step.g]


def reshape(step: Step) -> list[str | None]:
    return [step.graph.op("Reshape", [step.g, step.graph.ints(*step.shape(0))], step.shape(0))]


def transpose(step: Step) -> list[str | None]:
    shape = step.shape(0)
    order = step.attributes.get("perm", range(len(shape))[::-1])
    back = [int(axis) for axis in np.argsort(order)]
    return [step.graph.op("Transpose", [step.g], shape, perm=back)]


def concat(step: Step) -> list[str | None]:
    axis = step.attributes["axis"] % len(step.shape(0))
    grads: list[str | None] = []
    start = 0
    for i, need in enumerate(step.needed):
        end = start + _length(step, i, axis)
        grads.append(_cut(step, step.g, {axis: (start, end)}) if need else None)
        start = end
    return grads


def split(step: Step) -> list[str | None]:
    """The outputs' gradients joined; an output that has none counts as zeros."""
    graph, shape = step.graph, step.shape(0)
    axis = step.attributes.get("axis", 0) % len(shape)
    _length(step, 0, axis)
    lengths = [graph.shape(name)[axis] for name in step.node.output]
    used = [i for i, g in enumerate(step.gradients) if g]
    pieces = []
    # Each piece reaches up to the next that has a gradient, the first from the start.
    for k, i in enumerate(used):
        before = 0 if k else sum(lengths[:i])
        after = sum(lengths[i + 1 : used[k + 1] if k + 1 < len(used) else None])
        pieces.append(_pad(step, str(step.gradients[i]), {axis: (before, after)}))
    return [graph.op("Concat", pieces, shape, axis=axis) if len(pieces) > 1 else pieces[0]]


def slice_of(step: Step) -> list[str | None]:
    shape, (starts, ends, axes, steps) = step.shape(0), (step.constant(i) for i in range(1, 5))
    assert starts is not None and ends is not None
    places: dict[int, list[int]] = {}
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = k if axes is None else int(axes[k]) % len(shape)
        by = 1 if steps is None else int(steps[k])
        # ONNX clamps bounds as Python does.
        places[axis] = list(range(_length(step, 0, axis))[start:end:by])
    return [_put_back(step, places)]


def gather(step: Step) -> list[str | None]:
    """For constant indices that are all different: some of the channels, or all in another order."""
    indices, axis = step.constant(1), step.attributes.get("axis", 0) % len(step.shape(0))
    length = _length(step, 0, axis)
    if indices is None or indices.ndim != 1 or len(np.unique(indices % length)) != len(indices):
        raise step.refuse(
            "has no gradient rule for a single index or one listed twice, only for a list of different ones"
        )
    return [_put_back(step, {axis: (indices % length).tolist()})]


def pad(step: Step) -> list[str | None]:
    mode, amounts = step.attributes.get("mode", "constant"), step.constant(1)
    if mode != "constant" or amounts is None:
        raise step.refuse(f"with mode {mode} has no gradient rule, only with mode constant")
    inside, outside = {}, {}
    for axis, (before, after) in enumerate(amounts.reshape(2, -1).T.tolist()):
        if before or after:
            length = before + _length(step, 0, axis) + after
            inside[axis] = (max(before, 0), length - max(after, 0))
            # A negative amount left elements out.
            outside[axis] = (max(-before, 0), max(-after, 0))
    return [_pad(step, _cut(step, step.g, inside), outside)]


def _length(step: Step, index: int, axis: int) -> int:
    """The length of `axis` of input `index`, which must not be the batch."""
    length = step.shape(index)[axis]
    if length == BATCH:
        raise step.refuse("works along the batch, which has no gradient rule: a front half treats images one by one")
    return length


def _put_back(step: Step, places: Mapping[int, Sequence[int]]) -> str:
    """The gradient moved to where its elements were in the input, per axis, and zeros everywhere else."""
    graph, g = step.graph, step.g
    gaps = {}
    for axis, at in places.items():
        length, first = step.shape(0)[axis], at[0] if at else 0
        if list(at) == list(range(first, first + len(at))):
            gaps[axis] = (first, length - first - len(at))
            continue
        source = np.full(length, len(at), dtype=np.int64)  # beyond the end: the zero that is added there
        source[list(at)] = np.arange(len(at))
        if len(at) < length:
            g = _pad(step, g, {axis: (0, 1)})
        shape = tuple(length if i == axis else n for i, n in enumerate(graph.shape(g)))
        g = graph.op("Gather", [g, graph.constant(source)], shape, axis=axis)
    return _pad(step, g, gaps)


def _pad(step: Step, g: str, amounts: Mapping[int, tuple[int, int]]) -> str:
    """`g` with zeros before and after, per axis."""
    shape = step.graph.shape(g)
    pairs = [amounts.get(axis, (0, 0)) for axis in range(len(shape))]
    if not any(map(any, pairs)):
        return g
    grown = tuple(n if n == BATCH else n + sum(pair) for n, pair in zip(shape, pairs, strict=True))
    return step.graph.op("Pad", [g, step.graph.ints(*(a for a, _ in pairs), *(b for _, b in pairs))], grown)


def _cut(step: Step, g: str, bounds: Mapping[int, tuple[int, int]]) -> str:
    """`g` from the first bound to before the second, per axis."""
    graph, shape = step.graph, step.graph.shape(g)
    bounds = {axis: bound for axis, bound in bounds.items() if bound != (0, shape[axis])}
    if not bounds:
        return g
    left = tuple(bounds[axis][1] - bounds[axis][0] if axis in bounds else n for axis, n in enumerate(shape))
    starts, ends = zip(*bounds.values(), strict=True)
    return graph.op("Slice", [g, graph.ints(*starts), graph.ints(*ends), graph.ints(*bounds)], left)

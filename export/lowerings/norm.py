"""Lowerings of group, instance and layer norm to operators that have gradient rules.

That of batch norm, whose statistics leave the graph, is in FrontBuilder.
"""

from types import SimpleNamespace
from typing import Any

import torch

from edgekit.export.graph import BATCH
from edgekit.export.lowerings.call import Call, Lowering


def _standardised(c: Call, x: str, axes: list[int], epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon) over `axes`."""
    shape = c.graph.shape(x)
    small = tuple(1 if i in axes else d for i, d in enumerate(shape))
    centred = c.op("Sub", [x, c.op("ReduceMean", [x], small, axes=axes, keepdims=1)], shape)
    variance = c.op("ReduceMean", [c.op("Mul", [centred, centred], shape)], small, axes=axes, keepdims=1)
    deviation = c.op("Sqrt", [c.op("Add", [variance, c.scalar(epsilon)], small)], small)
    return c.op("Div", [centred, deviation], shape)


def _affine(c: Call, x: str, weight: str | None, bias: str | None) -> str:
    if weight:
        x = c.op("Mul", [x, weight])
    return c.op("Add", [x, bias]) if bias else x


def _per_channel(c: Call, a: SimpleNamespace) -> list[str | None]:
    return [c.per_channel(name, len(c.shape)) if name else None for name in (a.weight, a.bias)]


def group_norm(c: Call, a: SimpleNamespace) -> str:
    channels, *size = c.shape[1:]
    count = channels // a.num_groups
    for d in size:
        count *= d
    grouped = c.reshape(a.x, (BATCH, a.num_groups, count))
    return _affine(c, c.reshape(_standardised(c, grouped, [2], a.eps), c.shape), *_per_channel(c, a))


def instance_norm(c: Call, a: SimpleNamespace) -> str:
    if a.running_mean or a.running_var:
        raise c.refused("with running statistics", "build it with track_running_stats=False")
    return _affine(c, _standardised(c, a.x, list(range(2, len(c.shape))), a.eps), *_per_channel(c, a))


def layer_norm(c: Call, a: SimpleNamespace) -> str:
    rank = len(c.shape)
    axes = list(range(rank - len(a.normalized_shape), rank))
    return _affine(c, _standardised(c, a.x, axes, a.eps), a.weight, a.bias)


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.group_norm.default: group_norm,
    _aten.instance_norm.default: instance_norm,
    _aten.layer_norm.default: layer_norm,
}

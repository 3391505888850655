"""Lowerings of convolutions and transposed convolutions."""

from types import SimpleNamespace
from typing import Any

import torch

from edgekit.export.lowerings.call import Call, Lowering, pair


def _conv(c: Call, a: SimpleNamespace, pads: list[int]) -> str:
    c.images(a.x)
    return c.op(
        "Conv",
        [name for name in (a.x, a.weight, a.bias) if name],
        kernel_shape=list(c.graph.shape(a.weight)[2:]),
        strides=pair(a.stride),
        pads=pads,
        dilations=pair(a.dilation),
        group=int(a.groups),
    )


def conv(c: Call, a: SimpleNamespace) -> str:
    return _conv(c, a, pair(a.padding) * 2)


def conv_by_name(c: Call, a: SimpleNamespace) -> str:
    """With padding "same" or "valid"; an odd row or column of padding goes to the far edge, as in PyTorch."""
    total = [0, 0]
    if a.padding == "same":
        total = [d * (k - 1) for k, d in zip(c.graph.shape(a.weight)[2:], pair(a.dilation), strict=True)]
    near = [t // 2 for t in total]
    return _conv(c, a, near + [t - n for t, n in zip(total, near, strict=True)])


def conv_transpose(c: Call, a: SimpleNamespace) -> str:
    c.images(a.x)
    return c.op(
        "ConvTranspose",
        [name for name in (a.x, a.weight, a.bias) if name],
        kernel_shape=list(c.graph.shape(a.weight)[2:]),
        strides=pair(a.stride),
        pads=pair(a.padding) * 2,
        output_padding=pair(a.output_padding),
        dilations=pair(a.dilation),
        group=int(a.groups),
    )


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.conv2d.default: conv,
    _aten.conv2d.padding: conv_by_name,
    _aten.conv_transpose2d.input: conv_transpose,
}

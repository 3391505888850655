"""The gradients of Conv and ConvTranspose for every geometry: groups, strides, dilations, padding on any side."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

Pair = tuple[int, int]
IMAGE = (3, 4, 9, 8)


def convolution(
    op: str, image: tuple[int, ...], out: int, kernel: Pair, *, strides: Pair = (1, 1), dilations: Pair = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0), group: int = 1, bias: bool = False, more: Pair = (0, 0),
) -> dict[str, Any]:  # fmt: skip
    """`image` (n,C,h,w), `out` channels, `pads` top, left, bottom, right, `more` the output_padding.

    PyTorch pads both sides alike, so there the image is padded, or the result cut, on its own.
    """
    top, left, bottom, right = pads
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}

    def forward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        return F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, strides, 0, dilations, group)

    def backward(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        full = F.pad(F.conv_transpose2d(x, w, None, strides, 0, 0, group, dilations), (0, more[1], 0, more[0]))
        cut = full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]
        return cut if b is None else cut + b.view(-1, 1, 1)

    shape = (out, image[1] // group, *kernel)
    if op == "ConvTranspose":
        shape, attributes["output_padding"] = (image[1], out // group, *kernel), more
    rng = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(size, generator=rng)) for size in [shape, (out,)][: 1 + bias]]
    inputs = [torch.randn(image, generator=rng), *weights]
    like = forward if op == "Conv" else backward
    return {"op": op, "inputs": inputs, "like": like, "group": group, **attributes}


CONVOLUTIONS = [
    convolution("Conv", IMAGE, 6, (3, 3)),
    convolution("Conv", IMAGE, 6, (3, 3), pads=(1, 1, 1, 1), bias=True),
    convolution("Conv", IMAGE, 6, (3, 2), strides=(2, 3), pads=(1, 0, 2, 1), bias=True),
    convolution("Conv", (2, 16, 7, 9), 8, (3, 3), strides=(2, 2), pads=(0, 1, 1, 2)),  # one product per tap
    convolution("Conv", (2, 16, 9, 9), 8, (3, 3), dilations=(2, 3), pads=(3, 0, 1, 2), strides=(1, 2)),
    convolution("Conv", (2, 16, 2, 2), 8, (5, 5), pads=(2, 2, 2, 2)),  # a kernel larger than the image
    convolution("Conv", (2, 16, 1, 1), 8, (3, 3), pads=(1, 1, 1, 1)),
    convolution("Conv", (2, 48, 7, 6), 48, (3, 3), pads=(1, 1, 1, 1)),  # one product per column
    convolution("Conv", (2, 48, 7, 6), 48, (3, 2), strides=(2, 3), pads=(1, 0, 2, 1)),
    convolution("Conv", (2, 48, 8, 9), 48, (3, 3), dilations=(2, 3), pads=(3, 0, 1, 2), strides=(3, 1)),
    convolution("Conv", (2, 48, 9, 9), 48, (2, 2), strides=(4, 5)),
    convolution("Conv", (2, 48, 1, 1), 48, (3, 3), pads=(1, 1, 1, 1)),
    convolution("ConvTranspose", (2, 48, 4, 3), 50, (3, 3), strides=(2, 2), pads=(1, 0, 1, 1), more=(1, 0)),
    convolution("Conv", IMAGE, 6, (1, 1), bias=True),
    convolution("Conv", IMAGE, 6, (1, 1), strides=(2, 2)),
    convolution("Conv", IMAGE, 6, (1, 1), pads=(1, 2, 0, 1), strides=(3, 2)),
    convolution("Conv", (2, 32, 2, 2), 48, (1, 1)),  # more weights than positions
    convolution("Conv", (2, 32, 5, 5), 4, (1, 1), strides=(4, 3)),  # windows that leave rows out
    convolution("Conv", IMAGE, 6, (3, 3), group=2, pads=(0, 1, 2, 1), strides=(2, 1), bias=True),
    convolution("Conv", (2, 12, 8, 7), 8, (3, 3), group=4, dilations=(2, 1), pads=(2, 1, 1, 0)),
    convolution("Conv", (2, 12, 8, 7), 12, (1, 1), group=3),
    convolution("Conv", IMAGE, 4, (3, 3), group=4, pads=(1, 1, 1, 1)),
    convolution("Conv", IMAGE, 4, (3, 3), group=4, pads=(0, 0, 1, 1), strides=(2, 2)),
    convolution("Conv", IMAGE, 8, (3, 2), group=4, pads=(1, 2, 3, 1), strides=(3, 2), dilations=(2, 3), bias=True),
    convolution("Conv", IMAGE, 4, (2, 2), group=4, strides=(4, 5)),
    convolution("Conv", (2, 4, 1, 1), 4, (1, 1), group=4, pads=(3, 3, 0, 0), strides=(5, 5)),  # only padding
    convolution("ConvTranspose", IMAGE, 6, (3, 3)),
    convolution("ConvTranspose", IMAGE, 6, (3, 2), strides=(2, 3), pads=(1, 0, 0, 1), more=(1, 2), bias=True),
    convolution("ConvTranspose", (2, 16, 5, 4), 24, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), more=(1, 1)),
    convolution("ConvTranspose", IMAGE, 6, (3, 3), dilations=(2, 3), pads=(2, 1, 0, 3)),
    convolution("ConvTranspose", IMAGE, 6, (3, 3), dilations=(3, 2), strides=(3, 2), more=(2, 1), group=2),
    convolution("ConvTranspose", IMAGE, 4, (2, 2), strides=(2, 2), group=4, bias=True),
    convolution("ConvTranspose", IMAGE, 8, (3, 3), strides=(2, 1), pads=(0, 2, 1, 1), more=(1, 0), group=4),
    convolution("ConvTranspose", IMAGE, 6, (1, 1)),
    convolution("ConvTranspose", IMAGE, 6, (1, 1), strides=(3, 2), more=(2, 1)),
]


@pytest.mark.parametrize("one", CONVOLUTIONS)
def test_convolution(against_autograd: Callable[..., None], one: dict[str, Any]) -> None:
    against_autograd(**one)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    """Any geometry, of few enough elements."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    op, group = draw(st.sampled_from(["Conv", "ConvTranspose"])), draw(st.sampled_from([1, 1, 2, 4]))
    kernel, strides, dilations, pads = pair(1, 4), pair(1, 3), pair(1, 3), (*pair(0, 3), *pair(0, 3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size, more = pair(1, 9), (0, 0)
    around = (pads[0] + pads[2], pads[1] + pads[3])
    if op == "Conv":
        assume(all(n + p >= r for n, p, r in zip(size, around, reach, strict=True)))
    else:
        more = (draw(st.integers(0, strides[0] - 1)), draw(st.integers(0, strides[1] - 1)))
        full = [(n - 1) * s + r + o for n, s, r, o in zip(size, strides, reach, more, strict=True)]
        assume(all(f > p for f, p in zip(full, around, strict=True)))
    return convolution(
        op, (draw(st.integers(1, 3)), group * draw(st.integers(1, 3)), *size), group * draw(st.integers(1, 3)), kernel,
        strides=strides, pads=pads, dilations=dilations, group=group, bias=draw(st.booleans()), more=more,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(convolutions())
def test_any_convolution(against_autograd: Callable[..., None], one: dict[str, Any]) -> None:
    against_autograd(**one)

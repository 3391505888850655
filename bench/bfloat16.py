"""Networks that compute in bfloat16: by autocast where the processor multiplies it, else by rounding in float32.

Without such instructions autocast takes twice as long as float32 (VGG11-thin, tried by hand). Rounding the weights, and
what enters and leaves convolutions and linear layers, forward and backward, takes a quarter longer. It gives the same
but for the order in which sums are made and for what rounding makes equal before a max pool; sums of residual branches
stay float32.
"""

import types
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear


def native() -> bool:
    """Whether this processor multiplies bfloat16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def bfloat16(half: nn.Module) -> None:
    """Makes `half` compute in bfloat16 within `precision`, but for depthwise convolutions, whose bfloat16 gradient is
    slower than float32."""
    for module in half.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = types.MethodType(_full_precision, module)  # type: ignore[method-assign]
        elif not native() and isinstance(module, nn.Conv2d | nn.Linear):
            module.forward = types.MethodType(_rounded, module)  # type: ignore[method-assign]
    if not native():
        half.register_forward_hook(lambda module, given, output: _round(output))


def precision(mixed: bool) -> AbstractContextManager[Any]:
    """What a half that `bfloat16` changed computes in."""
    return torch.autocast("cpu", torch.bfloat16, enabled=mixed and native())


class _Round(torch.autograd.Function):
    """Float32 rounded to bfloat16, and its gradient likewise."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.bfloat16().float()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.bfloat16().float()


def _round(x: torch.Tensor) -> torch.Tensor:
    return _Round.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def _rounded(layer: nn.Conv2d | nn.Linear, x: torch.Tensor) -> torch.Tensor:
    bias = None if layer.bias is None else _round(layer.bias)
    if isinstance(layer, nn.Linear):
        return _round(linear(_round(x), _round(layer.weight), bias))
    return _round(layer._conv_forward(_round(x), _round(layer.weight), bias))


def _full_precision(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        # What enters is bfloat16, what leaves is not.
        entering = x.float() if native() else _round(x)
        made: torch.Tensor = layer._conv_forward(entering, layer.weight, layer.bias)
        return made

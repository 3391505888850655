"""Lowerings of activations and arithmetic, element by element."""

import math
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from edgekit.export.graph import Shape
from edgekit.export.lowerings.call import Call, Lowering

LIMITS = np.finfo(np.float32)


def _unary(operator: str) -> Lowering:
    return lambda c, a: c.op(operator, [a.x])


def hardsigmoid(c: Call, a: SimpleNamespace) -> str:
    return c.op("HardSigmoid", [a.x], alpha=1 / 6, beta=0.5)


def _clip(c: Call, x: str, low: float | None, high: float | None) -> str:
    bounds = (float(LIMITS.min) if low is None else low, float(LIMITS.max) if high is None else high)
    return c.op("Clip", [x, *map(c.scalar, bounds)])


def _by(c: Call, operator: str, x: str, factor: float) -> str:
    return x if factor == 1 else c.op(operator, [x, c.scalar(factor)])


def _elu(c: Call, x: str, alpha: float, scale: float, input_scale: float) -> str:
    return _by(c, "Mul", c.op("Elu", [_by(c, "Mul", x, input_scale)], alpha=float(alpha)), scale)


def prelu(c: Call, a: SimpleNamespace) -> str:
    return c.op("PRelu", [a.x, c.per_channel(a.weight, len(c.shape))])


def gelu(c: Call, a: SimpleNamespace) -> str:
    half = c.op("Mul", [a.x, c.scalar(0.5)])
    if a.approximate == "tanh":
        cube = c.op("Mul", [c.op("Mul", [a.x, a.x]), a.x])
        inner = c.op("Add", [a.x, c.op("Mul", [cube, c.scalar(0.044715)])])
        curve = c.op("Tanh", [c.op("Mul", [inner, c.scalar(math.sqrt(2 / math.pi))])])
    else:
        curve = c.op("Erf", [c.op("Mul", [a.x, c.scalar(math.sqrt(0.5))])])
    return c.op("Mul", [half, c.op("Add", [curve, c.scalar(1.0)])])


def mish(c: Call, a: SimpleNamespace) -> str:
    """x tanh(log(1 + e^x)) = x s (1 + q) / (1 + q^2), with s = sigmoid(x) and q = sigmoid(-x): nothing overflows."""
    q = c.op("Sigmoid", [c.op("Neg", [a.x])])
    above = c.op("Mul", [c.op("Mul", [a.x, c.op("Sigmoid", [a.x])]), c.op("Add", [q, c.scalar(1.0)])])
    return c.op("Div", [above, c.op("Add", [c.op("Mul", [q, q]), c.scalar(1.0)])])


def glu(c: Call, a: SimpleNamespace) -> str:
    axis = c.axis(a.x, a.dim)
    half = c.shape[axis]
    value, gate = (c.slice(a.x, axis, i * half, (i + 1) * half) for i in (0, 1))
    return c.op("Mul", [value, c.op("Sigmoid", [gate])])


def softmax(c: Call, a: SimpleNamespace) -> str:
    """Softmax over the last axis, x being transposed for others: opset 13 changed what it means over these."""
    axis, rank = c.axis(a.x, a.dim), len(c.shape)
    if axis == 0:
        raise c.refused("over the batch", "choose another axis")
    perm = list(range(rank))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    x = c.transpose(a.x, perm)
    return c.transpose(c.op("Softmax", [x], c.graph.shape(x), axis=rank - 1), perm)


def power(c: Call, a: SimpleNamespace) -> str:
    if a.exponent == 0.5:
        return c.op("Sqrt", [a.x])
    if a.exponent not in (1, 2, 3, 4):
        raise c.refused(f"with exponent {a.exponent}", "exponents 0.5, 1, 2, 3 and 4 have one")
    y = str(a.x)
    for _ in range(int(a.exponent) - 1):
        y = c.op("Mul", [y, a.x])
    return y


def _broadcast(x: Shape, y: Shape) -> Shape:
    pairs = zip_longest(reversed(x), reversed(y), fillvalue=1)
    return tuple(reversed([j if i == 1 else i for i, j in pairs]))


def _binary(operator: str, swapped: bool = False) -> Lowering:
    def lowering(c: Call, a: SimpleNamespace) -> str:
        x, y = (v if isinstance(v, str) else c.scalar(v) for v in (a.x, a.other))
        if swapped:
            x, y = y, x
        alpha = getattr(a, "alpha", 1)
        if alpha != 1:
            y = c.op("Mul", [y, c.scalar(alpha)], c.graph.shape(y))
        if _broadcast(c.graph.shape(x), c.graph.shape(y)) != c.shape:
            raise c.refused("of two tensors that are both expanded", "expand one of them")
        return c.op(operator, [x, y])

    return lowering


def _over(c: Call, x: str) -> str:
    return c.op("Div", [c.scalar(1.0), x])


_aten = torch.ops.aten
LOWERINGS: dict[Any, Lowering] = {
    _aten.relu.default: _unary("Relu"),
    _aten.sigmoid.default: _unary("Sigmoid"),
    _aten.tanh.default: _unary("Tanh"),
    _aten.exp.default: _unary("Exp"),
    _aten.sqrt.default: _unary("Sqrt"),
    _aten.erf.default: _unary("Erf"),
    _aten.neg.default: _unary("Neg"),
    _aten.hardsigmoid.default: hardsigmoid,
    _aten.leaky_relu.default: lambda c, a: c.op("LeakyRelu", [a.x], alpha=float(a.negative_slope)),
    _aten.prelu.default: prelu,
    _aten.elu.default: lambda c, a: _elu(c, a.x, a.alpha, a.scale, a.input_scale),
    _aten.celu.default: lambda c, a: _elu(c, a.x, 1.0, float(a.alpha), 1 / float(a.alpha)),
    _aten.selu.default: lambda c, a: _elu(c, a.x, 1.6732632423543772, 1.0507009873554805, 1.0),
    _aten.relu6.default: lambda c, a: _clip(c, a.x, 0.0, 6.0),
    _aten.hardtanh.default: lambda c, a: _clip(c, a.x, a.min_val, a.max_val),
    _aten.clamp.default: lambda c, a: _clip(c, a.x, a.min, a.max),
    _aten.clamp_min.default: lambda c, a: _clip(c, a.x, a.min, None),
    _aten.clamp_max.default: lambda c, a: _clip(c, a.x, None, a.max),
    _aten.silu.default: lambda c, a: c.op("Mul", [a.x, c.op("Sigmoid", [a.x])]),
    _aten.hardswish.default: lambda c, a: c.op("Mul", [a.x, hardsigmoid(c, a)]),
    _aten.gelu.default: gelu,
    _aten.mish.default: mish,
    _aten.glu.default: glu,
    _aten.softmax.int: softmax,
    _aten.square.default: lambda c, a: c.op("Mul", [a.x, a.x]),
    _aten.pow.Tensor_Scalar: power,
    _aten.rsqrt.default: lambda c, a: _over(c, c.op("Sqrt", [a.x])),
    _aten.reciprocal.default: lambda c, a: _over(c, a.x),
    _aten.add.Tensor: _binary("Add"),
    _aten.add.Scalar: _binary("Add"),
    _aten.sub.Tensor: _binary("Sub"),
    _aten.sub.Scalar: _binary("Sub"),
    _aten.rsub.Tensor: _binary("Sub", swapped=True),
    _aten.rsub.Scalar: _binary("Sub", swapped=True),
    _aten.mul.Tensor: _binary("Mul"),
    _aten.mul.Scalar: _binary("Mul"),
    _aten.div.Tensor: _binary("Div"),
    _aten.div.Scalar: _binary("Div"),
    _aten.true_divide.Tensor: _binary("Div"),
}
#: Operators that broadcast their inputs themselves.
BROADCASTING = frozenset(key for key in LOWERINGS if key.overloadpacket in (_aten.add, _aten.sub, _aten.mul, _aten.div))

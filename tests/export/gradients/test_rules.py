"""Every gradient rule against PyTorch's autograd in float64, in ONNX Runtime and in the reference backend.

Those of convolutions are in test_conv.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit.export.gradient import GRADIENT_RULES
from edgekit.export.graph import BATCH, Graph, Shape

Function = Callable[..., Any]
RNG = torch.Generator().manual_seed(0)


def fed(*shape: int, low: float | None = None, ties: bool = False) -> torch.Tensor:
    """Normal numbers, or at least `low`, or few different ones; the first dimension is the batch."""
    values = torch.randn(shape, generator=RNG)
    values = values if low is None else low + values.abs()
    return values.round() if ties else values


def weight(*shape: int, low: float | None = None) -> nn.Parameter:
    return nn.Parameter(fed(*shape, low=low))


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


def case(op: str, *inputs: Any, like: Function, more: Sequence[Shape] = (), **attributes: Any) -> Any:
    kinds = "-".join("x".join(map(str, v.shape)) for v in inputs if isinstance(v, torch.Tensor))
    return pytest.param(op, inputs, like, {"more": more, **attributes}, id=f"{op}-{kinds}")


def pool(op: str, image: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], **attributes: Any) -> Any:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))

    def largest(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-torch.inf), kernel, strides)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, kernel, strides)

    like = largest if op == "MaxPool" else mean
    return case(op, fed(*image), like=like, kernel_shape=list(kernel), strides=list(strides), **attributes)


def batch_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, None, None, scale, bias, training=True, eps=0.01)


def fixed_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean, var = (torch.from_numpy(array).double() for array in (MEAN, VAR))
    return F.batch_norm(x, mean, var, scale, bias, eps=0.01)


def of(function: Function, *arguments: Any, **named: Any) -> Function:
    """`function` of the differentiable inputs and then `arguments`."""
    return lambda *tensors: function(*tensors, *arguments, **named)


def product(turn_a: int, turn_b: int) -> Function:
    return lambda a, b, c: 0.5 * (a.T if turn_a else a) @ (b.T if turn_b else b) - 2 * c


MEAN = np.array([0.3, -1.0, 0.1, 2.0], dtype=np.float32)
VAR = np.array([0.5, 2.0, 1.0, 0.1], dtype=np.float32)
ZERO4, ONE4 = np.zeros(4, dtype=np.float32), np.ones(4, dtype=np.float32)
IMAGE = (3, 4, 9, 8)

#: (transA, transB) -> shapes of A and B for a product (3,5).
GEMMS = {(0, 0): ((3, 4), (4, 5)), (0, 1): ((3, 4), (5, 4)), (1, 0): ((4, 3), (4, 5)), (1, 1): ((4, 3), (5, 4))}
#: Shapes that broadcast: what the second operand is.
OPERANDS = [
    weight(1, low=0.5), weight(low=0.5), weight(4, 1, 1, low=0.5), weight(1, 4, 1, 8, low=0.5), weight(8, low=0.5),
    fed(3, 4, 1, 1, low=0.5), fed(3, 1, 9, 8, low=0.5), fed(3, 4, 9, 8, low=0.5), weight(9, 1, low=0.5),
]  # fmt: skip
ARITHMETIC: dict[str, Callable[..., Any]] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}

CASES = [
    case("Gemm", fed(3, 4), weight(5, 4), weight(5), like=lambda a, b, c: F.linear(a, b, c), transB=1),
    *(
        case(
            "Gemm", fed(*a) if not turn_a else weight(*a), weight(*b), weight(*c), like=product(turn_a, turn_b),
            transA=turn_a, transB=turn_b, alpha=0.5, beta=-2.0,
        )
        for (turn_a, turn_b), (a, b) in GEMMS.items() for c in [(1, 5), (5,), (1,)]
    ),
    case("Gemm", fed(3, 4), weight(4, 5), like=torch.matmul),
    case("MatMul", fed(3, 4), weight(4, 5), like=torch.matmul),
    case("MatMul", fed(3, 2, 4), weight(4, 5), like=torch.matmul),
    case("MatMul", fed(3, 2, 6, 4), weight(4, 5), like=torch.matmul),
    case("MatMul", fed(3, 2, 4), fed(3, 4, 5), like=torch.matmul),
    case("MatMul", fed(3, 2, 6, 4), fed(3, 2, 4, 5), like=torch.matmul),
    case("MatMul", fed(3, 2, 6, 4), weight(2, 4, 5), like=torch.matmul),
    case("MatMul", fed(3, 1, 6, 4), weight(1, 2, 4, 5), like=torch.matmul),
    case("MatMul", weight(6, 4), fed(3, 2, 4, 5), like=torch.matmul),
    case("MatMul", weight(1, 2, 6, 4), fed(3, 2, 4, 5), like=torch.matmul),
    case("BatchNormalization", fed(3, 4, 5, 6), weight(4, low=0.5), weight(4), ZERO4, ONE4, like=batch_norm,
         more=[(4,), (4,)], training_mode=1, momentum=0.0, epsilon=0.01),
    case("BatchNormalization", fed(6, 4), weight(4, low=0.5), weight(4), ZERO4, ONE4, like=batch_norm,
         more=[(4,), (4,)], training_mode=1, momentum=0.0, epsilon=0.01),
    case("BatchNormalization", fed(3, 4, 5, 6), weight(4, low=0.5), weight(4), MEAN, VAR, like=fixed_norm,
         epsilon=0.01),
    case("BatchNormalization", fed(6, 4), weight(4, low=0.5), weight(4), MEAN, VAR, like=fixed_norm, epsilon=0.01),
    case("Relu", fed(*IMAGE), like=F.relu),
    case("Clip", fed(*IMAGE), number(-0.5), number(0.7), like=of(F.hardtanh, -0.5, 0.7)),
    case("Clip", fed(*IMAGE), number(-0.5), like=of(torch.clamp, -0.5)),
    case("Clip", fed(*IMAGE), None, number(0.7), like=of(torch.clamp, None, 0.7)),
    case("Clip", fed(*IMAGE), like=torch.clone),
    case("LeakyRelu", fed(*IMAGE), like=F.leaky_relu),
    case("LeakyRelu", fed(*IMAGE), like=of(F.leaky_relu, 0.3), alpha=0.3),
    case("LeakyRelu", fed(*IMAGE), like=of(F.leaky_relu, -0.3), alpha=-0.3),
    case("PRelu", fed(*IMAGE), weight(4, 1, 1), like=lambda x, slope: F.prelu(x, slope.flatten())),
    case("PRelu", fed(*IMAGE), weight(1), like=F.prelu),
    case("Elu", fed(*IMAGE), like=F.elu),
    case("Elu", fed(*IMAGE), like=of(F.elu, 0.3), alpha=0.3),
    case("Sigmoid", fed(*IMAGE), like=torch.sigmoid),
    case("HardSigmoid", fed(*IMAGE), like=lambda x: torch.clamp(0.2 * x + 0.5, 0, 1)),
    case("HardSigmoid", fed(*IMAGE), like=lambda x: torch.clamp(0.9 * x + 0.4, 0, 1), alpha=0.9, beta=0.4),
    case("Tanh", fed(*IMAGE), like=torch.tanh),
    case("Erf", fed(*IMAGE), like=torch.erf),
    case("Exp", fed(*IMAGE), like=torch.exp),
    case("Sqrt", fed(*IMAGE, low=0.2), like=torch.sqrt),
    case("Neg", fed(*IMAGE), like=torch.neg),
    case("Identity", fed(*IMAGE), like=torch.clone),
    case("Softmax", fed(*IMAGE), like=of(F.softmax, dim=1), axis=1),
    case("Softmax", fed(*IMAGE), like=of(F.softmax, dim=-1)),
    *(case(op, fed(*IMAGE), other, like=like) for op, like in ARITHMETIC.items() for other in OPERANDS),
    *(case(op, other, fed(*IMAGE, low=0.5), like=like) for op, like in ARITHMETIC.items() for other in OPERANDS),
    *(case(op, fed(*IMAGE), number(1.7), like=of(like, 1.7)) for op, like in ARITHMETIC.items()),
    case("Div", number(1.7), fed(*IMAGE, low=0.5), like=lambda x: 1.7 / x),
    case("Sub", number(1.7), fed(*IMAGE), like=lambda x: 1.7 - x),
    case("Mul", weight(4, 1), weight(5), like=torch.mul),
    pool("MaxPool", (2, 3, 8, 6), (2, 2), (2, 2)),
    pool("MaxPool", (2, 3, 9, 7), (2, 3), (2, 3)),
    pool("MaxPool", (2, 3, 9, 8), (2, 2), (3, 4)),
    pool("MaxPool", (2, 3, 7, 8), (2, 3), (2, 3), pads=[1, 0, 0, 1]),
    pool("MaxPool", (2, 3, 9, 8), (3, 3), (2, 2), pads=[1, 1, 1, 1]),
    pool("MaxPool", (2, 3, 9, 8), (3, 2), (2, 1), pads=[0, 1, 1, 0]),
    pool("MaxPool", (2, 3, 10, 9), (3, 3), (2, 2)),
    pool("MaxPool", (2, 3, 10, 9), (5, 2), (3, 4)),
    pool("MaxPool", (2, 3, 5, 5), (3, 3), (1, 1), pads=[1, 1, 1, 1]),
    case("MaxPool", fed(2, 3, 8, 9, ties=True), like=of(F.max_pool2d, 2), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", fed(2, 3, 8, 9, ties=True), like=of(F.max_pool2d, 3, 2, 1), kernel_shape=[3, 3], strides=[2, 2],
         pads=[1, 1, 1, 1]),
    case("MaxPool", fed(2, 3, 4, 5), like=of(F.max_pool2d, 2, 1), kernel_shape=[2, 2]),
    pool("AveragePool", (2, 3, 8, 6), (2, 2), (2, 2)),
    pool("AveragePool", (2, 3, 9, 8), (2, 3), (2, 3)),
    pool("AveragePool", (2, 3, 9, 8), (3, 3), (2, 2)),
    pool("AveragePool", (2, 3, 9, 9), (2, 2), (3, 4)),
    pool("AveragePool", (2, 3, 9, 9), (4, 2), (1, 3)),
    case("GlobalAveragePool", fed(*IMAGE), like=of(F.adaptive_avg_pool2d, 1)),
    case("ReduceMean", fed(*IMAGE), like=of(torch.mean, (2, 3)), axes=[2, 3], keepdims=0),
    case("ReduceMean", fed(*IMAGE), like=of(torch.mean, (2, 3), keepdim=True), axes=[-2, -1]),
    case("ReduceMean", fed(*IMAGE), like=of(torch.mean, (1,), keepdim=True), axes=[1], keepdims=1),
    case("ReduceMean", fed(*IMAGE), like=of(torch.mean, (1, 3)), axes=[3, 1], keepdims=0),
    case("ReduceMean", weight(4, 5), like=of(torch.mean, (0, 1)), keepdims=0),
    case("ReduceMean", weight(4, 5), like=of(torch.mean, (0,)), axes=[0], keepdims=0),
    case("Concat", fed(3, 2, 4), fed(3, 1, 4), fed(3, 5, 4), like=lambda *x: torch.cat(x, 1), axis=1),
    case("Concat", fed(3, 2, 4), np.ones((3, 2, 1), dtype=np.float32), fed(3, 2, 5), axis=-1,
         like=lambda a, b: torch.cat([a, torch.ones(3, 2, 1).double(), b], -1)),
    case("Concat", weight(2, 4), weight(3, 4), like=lambda *x: torch.cat(x, 0), axis=0),
    case("Concat", fed(3, 2), like=torch.clone, axis=1),
    case("Slice", fed(*IMAGE), ints(1), ints(3), ints(1), like=lambda x: x[:, 1:3]),
    case("Slice", fed(*IMAGE), ints(0, -3), ints(2, 2**62), ints(1, -1), like=lambda x: x[:, :2, :, -3:]),
    case("Slice", fed(*IMAGE), ints(1, 0), ints(9, 8), ints(2, 3), ints(3, 2), like=lambda x: x[:, :, 1::3, ::2]),
    case("Slice", fed(*IMAGE), ints(-1), ints(-(2**62)), ints(2), ints(-1), like=lambda x: x.flip(2)),
    case("Slice", fed(*IMAGE), ints(7), ints(1), ints(2), ints(-2), like=lambda x: x[:, :, [7, 5, 3]]),
    case("Slice", fed(*IMAGE), ints(0), ints(9), ints(2), like=torch.clone),
    case("Slice", weight(4, 5), ints(1, 0), ints(3, 2), like=lambda x: x[1:3, :2]),
    case("Split", weight(4, 5), like=lambda x: x.chunk(2)[0], more=[(2, 5)]),
    case("Reshape", fed(3, 4, 9, 8), ints(-1, 288), like=of(torch.flatten, 1)),
    case("Reshape", fed(3, 4, 9, 8), ints(-1, 2, 2, 72), like=lambda x: x.view(3, 2, 2, 72)),
    case("Reshape", weight(4, 6), ints(3, 8), like=lambda x: x.view(3, 8)),
    case("Transpose", fed(*IMAGE), like=lambda x: x.permute(0, 3, 1, 2), perm=[0, 3, 1, 2]),
    case("Transpose", weight(4, 5), like=torch.t),
    case("Pad", fed(*IMAGE), ints(0, 0, 1, 2, 0, 1, 0, 3), like=of(F.pad, (2, 3, 1, 0, 0, 1))),
    case("Pad", fed(*IMAGE), ints(0, 0, 1, 0, 0, 0, 2, 0), number(0.5), like=of(F.pad, (0, 0, 1, 2), value=0.5)),
    case("Pad", fed(*IMAGE), ints(0, 0, 0, 0, 0, 0, 0, 0), like=torch.clone),
    case("Pad", fed(*IMAGE), ints(0, -1, 2, -1, 0, -1, -3, 0), like=lambda x: F.pad(x[:, 1:3, :-3, 1:], (0, 0, 2, 0))),
    case("Gather", fed(*IMAGE), ints(2, 0, 3, 1), like=lambda x: x[:, [2, 0, 3, 1]], axis=1),
    case("Gather", fed(*IMAGE), ints(7, -6), like=lambda x: x[:, :, :, [7, 2]], axis=-1),
    case("Gather", fed(*IMAGE), ints(1, 2), like=lambda x: x[:, 1:3], axis=1),
    case("Gather", weight(5, 3), ints(4, 1), like=lambda x: x[[4, 1]]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "like", "options"), CASES)
def test_gradient(op: str, inputs: Any, like: Function, options: dict[str, Any], against_autograd: Function) -> None:
    against_autograd(op, inputs, like, **options)


def test_every_rule_has_a_case() -> None:
    assert {param.values[0] for param in CASES} | {"Conv", "ConvTranspose"} == set(GRADIENT_RULES)


@pytest.mark.parametrize("used", [(0, 1, 2), (0,), (1,), (2,), (0, 2), (1, 2), (0, 1), (2, 0, 0)])
@pytest.mark.parametrize("lengths", [(1, 3, 2), None])
def test_split(used: tuple[int, ...], lengths: tuple[int, ...] | None, against_autograd: Function) -> None:
    """Whichever of its outputs the loss depends on."""
    sizes = lengths or (2, 2, 2)

    def emit(graph: Graph, names: list[str], shape: Shape) -> str:
        inputs = [*names, graph.ints(*lengths)] if lengths else names
        pieces = graph.add("Split", inputs, *((BATCH, n, 2) for n in sizes), axis=-2)
        return graph.op("Concat", [pieces[i] for i in used], shape, axis=1)

    def like(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.split(sizes, 1)[i] for i in used], 1)

    against_autograd(emit, [fed(3, 6, 2)], like)


def test_a_tensor_that_is_used_several_times(against_autograd: Function) -> None:
    """x * x * w + x, cut in two, which are put together the other way round."""

    def emit(graph: Graph, names: list[str], shape: Shape) -> str:
        x, w = names
        y = graph.op("Add", [graph.op("Mul", [graph.op("Mul", [x, x], shape), w], shape), x], shape)
        half = (BATCH, 2, 6, 6)
        halves = [graph.op("Slice", [y, graph.ints(i), graph.ints(i + 2), graph.ints(1)], half) for i in (2, 0)]
        return graph.op("Concat", halves, shape, axis=1)

    def like(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.cat((x * x * w + x).chunk(2, 1)[::-1], 1)

    against_autograd(emit, [fed(3, 4, 6, 6), weight(4, 1, 1)], like)

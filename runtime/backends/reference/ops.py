"""The table of the reference backend's operators: ONNX operator -> numpy function, for operator sets 11 to 17."""

import math
from typing import Any, Callable, Dict

import numpy as np

from edgekit.runtime.backends.reference import arithmetic as a
from edgekit.runtime.backends.reference import shape as s
from edgekit.runtime.backends.reference import window as w

#: Takes the inputs as positional arguments and the attributes by name; returns an array, or several.
Operator = Callable[..., Any]

OPERATORS: Dict[str, Operator] = {
    "Abs": a.unary(np.abs),
    "Add": a.binary(np.add),
    "And": a.binary(np.logical_and),
    "ArgMax": a.arg(np.argmax),
    "ArgMin": a.arg(np.argmin),
    "AveragePool": w.average_pool,
    "BatchNormalization": w.batch_normalization,
    "Cast": a.cast,
    "Clip": a.clip,
    "Concat": s.concat,
    "Constant": s.constant,
    "ConstantOfShape": s.constant_of_shape,
    "Conv": w.conv,
    "ConvTranspose": w.conv_transpose,
    "Div": a.div,
    "Dropout": s.dropout,
    "Elu": a.unary(lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(x), x)),
    "Equal": a.binary(np.equal),
    "Erf": a.unary(np.frompyfunc(math.erf, 1, 1)),
    "Exp": a.unary(np.exp),
    "Expand": s.expand,
    "Flatten": s.flatten,
    "Gather": s.gather,
    "Gemm": a.gemm,
    "GlobalAveragePool": w.global_average_pool,
    "Greater": a.binary(np.greater),
    "GreaterOrEqual": a.binary(np.greater_equal),
    "HardSigmoid": a.unary(lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1)),
    "Identity": s.identity,
    "LeakyRelu": a.unary(lambda x, alpha=0.01: np.where(x < 0, alpha * x, x)),
    "Less": a.binary(np.less),
    "LessOrEqual": a.binary(np.less_equal),
    "LogSoftmax": a.log_softmax,
    "MatMul": a.matmul,
    "Max": a.variadic(np.maximum),
    "MaxPool": w.max_pool,
    "MaxUnpool": w.max_unpool,
    "Min": a.variadic(np.minimum),
    "Mul": a.binary(np.multiply),
    "Neg": a.unary(np.negative),
    "Not": a.unary(np.logical_not),
    "Or": a.binary(np.logical_or),
    "PRelu": a.prelu,
    "Pad": s.pad,
    "Pow": a.power,
    "Reciprocal": a.unary(lambda x: 1 / x),
    "ReduceMax": a.reduction(np.max),
    "ReduceMean": a.reduction(np.mean, sums=True),
    "ReduceMin": a.reduction(np.min),
    "ReduceSum": a.reduction(np.sum, sums=True),
    "ReduceSumSquare": a.reduction(a.sum_of_squares, sums=True),
    "Relu": a.unary(lambda x: np.maximum(x, x.dtype.type(0))),
    "Reshape": s.reshape,
    "Shape": s.shape_of,
    "Sigmoid": a.unary(lambda x: 1 / (1 + np.exp(-x))),
    "Sign": a.unary(np.sign),
    "Size": s.size_of,
    "Slice": s.slice_of,
    "Softmax": a.softmax,
    "Split": s.split,
    "Sqrt": a.unary(np.sqrt),
    "Squeeze": s.squeeze,
    "Sub": a.binary(np.subtract),
    "Tanh": a.unary(np.tanh),
    "Tile": s.tile,
    "Transpose": s.transpose,
    "Unsqueeze": s.unsqueeze,
    "Where": a.where,
}
#: Those that meant something else before operator set 13.
BEFORE_13: Dict[str, Operator] = {"Softmax": a.softmax_11}

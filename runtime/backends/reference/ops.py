"""The operators that the reference backend knows, by ONNX type, for operator sets 11 to 17."""

from typing import Any, Callable, Dict

import numpy as np

from edgekit.runtime.backends.reference import arithmetic as m
from edgekit.runtime.backends.reference import shape as s
from edgekit.runtime.backends.reference import window as w

#: Takes the inputs as positional arguments and the attributes by name; returns an array, or several.
Operator = Callable[..., Any]

OPERATORS: Dict[str, Operator] = {
    "Abs": m.unary(np.abs),
    "Add": m.binary(np.add),
    "And": m.binary(np.logical_and),
    "ArgMax": m.arg(np.argmax),
    "ArgMin": m.arg(np.argmin),
    "AveragePool": w.average_pool,
    "BatchNormalization": w.batch_normalization,
    "Cast": m.cast,
    "Clip": m.clip,
    "Concat": s.concat,
    "Constant": s.constant,
    "ConstantOfShape": s.constant_of_shape,
    "Conv": w.conv,
    "ConvTranspose": w.conv_transpose,
    "Div": m.div,
    "Dropout": s.dropout,
    "Elu": m.elu,
    "Equal": m.binary(np.equal),
    "Erf": m.erf,
    "Exp": m.unary(np.exp),
    "Expand": s.expand,
    "Flatten": s.flatten,
    "Gather": s.gather,
    "Gemm": m.gemm,
    "GlobalAveragePool": w.global_average_pool,
    "Greater": m.binary(np.greater),
    "GreaterOrEqual": m.binary(np.greater_equal),
    "HardSigmoid": m.hard_sigmoid,
    "Identity": s.identity,
    "LeakyRelu": m.leaky_relu,
    "Less": m.binary(np.less),
    "LessOrEqual": m.binary(np.less_equal),
    "MatMul": m.matmul,
    "Max": m.variadic(np.maximum),
    "MaxPool": w.max_pool,
    "MaxUnpool": w.max_unpool,
    "Min": m.variadic(np.minimum),
    "Mul": m.binary(np.multiply),
    "Neg": m.unary(np.negative),
    "Not": m.unary(np.logical_not),
    "Or": m.binary(np.logical_or),
    "PRelu": m.prelu,
    "Pad": s.pad,
    "Pow": m.power,
    "Reciprocal": m.reciprocal,
    "ReduceMax": m.reduction(m.max_over),
    "ReduceMean": m.reduction(m.mean_over),
    "ReduceMin": m.reduction(m.min_over),
    "ReduceSum": m.reduction(m.sum_over),
    "ReduceSumSquare": m.reduction(m.sum_square_over),
    "Relu": m.relu,
    "Reshape": s.reshape,
    "Shape": s.shape_of,
    "Sigmoid": m.sigmoid,
    "Sign": m.unary(np.sign),
    "Size": s.size_of,
    "Slice": s.slice_of,
    "Softmax": m.softmax,
    "Split": s.split,
    "Sqrt": m.unary(np.sqrt),
    "Squeeze": s.squeeze,
    "Sub": m.binary(np.subtract),
    "Tanh": m.unary(np.tanh),
    "Tile": s.tile,
    "Transpose": s.transpose,
    "Unsqueeze": s.unsqueeze,
    "Where": m.where,
}
#: Those that meant something else before operator set 13.
BEFORE_13: Dict[str, Operator] = {"Softmax": m.softmax_11}

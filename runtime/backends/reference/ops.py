"""The table of the reference backend's operators: ONNX operator -> numpy function, for operator sets 11 to 17."""

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
    "Elu": a.elu,
    "Equal": a.binary(np.equal),
    "Erf": a.erf,
    "Exp": a.unary(np.exp),
    "Expand": s.expand,
    "Flatten": s.flatten,
    "Gather": s.gather,
    "Gemm": a.gemm,
    "GlobalAveragePool": w.global_average_pool,
    "Greater": a.binary(np.greater),
    "GreaterOrEqual": a.binary(np.greater_equal),
    "HardSigmoid": a.hard_sigmoid,
    "Identity": s.identity,
    "LeakyRelu": a.leaky_relu,
    "Less": a.binary(np.less),
    "LessOrEqual": a.binary(np.less_equal),
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
    "Reciprocal": a.reciprocal,
    "ReduceMax": a.reduction(a.max_over),
    "ReduceMean": a.reduction(a.mean_over),
    "ReduceMin": a.reduction(a.min_over),
    "ReduceSum": a.reduction(a.sum_over),
    "ReduceSumSquare": a.reduction(a.sum_square_over),
    "Relu": a.relu,
    "Reshape": s.reshape,
    "Shape": s.shape_of,
    "Sigmoid": a.sigmoid,
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

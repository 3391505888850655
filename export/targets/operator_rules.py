"""Board rules about operators: which ones, on which types, with which attributes."""

import onnx
from onnx import numpy_helper

from edgekit.export.targets.board_rule import CUT, told
from edgekit.export.targets.view import View, attributes

FLOATS = ("float32", "float16")
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
#: Operators that engines do not compute on integers, or compute wrongly.
NOT_ON_INTEGERS = ("Div", "Exp", "Floor", "Pow", "Round", "Sqrt", *REDUCTIONS)
ARITHMETIC = (
    *NOT_ON_INTEGERS, "Abs", "Add", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Clip",
    "CumSum", "Gemm", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "PRelu", "Relu", "Sign", "Sub", "Sum",
)  # fmt: skip
#: Operators that fail, or fall to a slow processor, on some board that has them in its list.
AVOIDED = (
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Einsum", "GatherND", "HardSwish", "Mod",
    "NonZero", "OneHot", "ScatterElements",
)  # fmt: skip
_BITS = "pack bits on the host"
_MOMENTS = "write it as ReduceMean, Sub, Mul, Sqrt and Div"
#: What to do in place of an operator.
INSTEAD = {
    "BatchNormalization": "fold it into the convolution before it",
    "BitShift": _BITS,
    "BitwiseAnd": _BITS,
    "BitwiseNot": _BITS,
    "BitwiseOr": _BITS,
    "BitwiseXor": _BITS,
    "Einsum": "write it as Transpose, Reshape and MatMul",
    "GatherND": "write it as Gather along one axis",
    "Gelu": "write it as x * (1 + Erf(x / sqrt(2))) / 2",
    "GroupNormalization": _MOMENTS,
    "HardSwish": "write it as x * HardSigmoid(x; alpha=1/6, beta=0.5), a HardSigmoid and a Mul",
    "InstanceNormalization": _MOMENTS,
    "LayerNormalization": _MOMENTS,
    "Mish": "write it as x * Tanh(Softplus(x))",
    "Mod": "write it as x - y * Floor(x / y) on floats",
    "NonZero": "multiply with a mask",
    "OneHot": "write it as Equal with a constant 0..K-1, and Cast",
    "Resize": "write it as a ConvTranspose with a constant kernel",
    "ScatterElements": "write it as Concat of slices, or Where with a constant mask",
    "Split": "write it as one Slice per piece",
    "TopK": "write it as ArgMin or ArgMax",
}


def _instead(operator: str) -> str:
    return f"{INSTEAD[operator]}, {CUT}" if operator in INSTEAD else CUT


def operators(view: View, node: onnx.NodeProto) -> str | None:
    known = view.target.operators
    if node.domain:
        return told(f"{node.domain}.{node.op_type}", "operators of ONNX's own domain", CUT)
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return told("a graph inside", "none, since no board rule looks there", f"write it without control flow, {CUT}")
    if known and node.op_type not in known:
        return told(f"operator {node.op_type}", f"one of the {len(known)} of the converter", _instead(node.op_type))
    return None


def avoid(view: View, node: onnx.NodeProto) -> str | None:
    return told(f"operator {node.op_type}", "none that fails or falls to a slow processor", _instead(node.op_type))


def _integers(view: View, node: onnx.NodeProto) -> str | None:
    # The second input of a reduction is its axes.
    for name in node.input[:1] if node.op_type in REDUCTIONS else node.input:
        if name and view.is_integer(name):
            return f"{node.op_type} on {view.dtype(name)} '{name}'"
    return None


def integer_arithmetic(view: View, node: onnx.NodeProto) -> str | None:
    got = _integers(view, node)
    return got and told(got, "floats", f"put a Cast to float before it, {CUT}")


def integer_free(view: View, node: onnx.NodeProto) -> str | None:
    got = _integers(view, node)
    return got and told(got, "no arithmetic on integers", f"compute in float or on the host, {CUT}")


def arg_reduce(view: View, node: onnx.NodeProto) -> str | None:
    written = attributes(node)
    if written.get("keepdims", 1):
        return told("keepdims=1", "0", "write keepdims=0, and a Reshape after it")
    if written.get("select_last_index", 0):
        return told("select_last_index=1", "0", "take the first among equals")
    rank = view.rank(node.input[0])
    if rank < 2:
        return told(f"an input of {rank} dimension", "at least 2", "put a Reshape before it")
    axis = written.get("axis", 0)
    axis += rank if axis < 0 else 0
    if not max(1, rank - 4) <= axis < rank:
        return told(f"axis {axis} of {rank}", "one of the last four, not the first", "put a Transpose before it")
    return _floats(view, node)


def topk(view: View, node: onnx.NodeProto) -> str | None:
    written = attributes(node)
    if not written.get("largest", 1):
        return told("largest=0", "1, which is what converters take it for", "negate the input")
    if not written.get("sorted", 1):
        return told("sorted=0", "1", "sort")
    stored = [view.constants[name] for name in node.input[1:] if name in view.constants]
    if not stored:
        return told("K at run time", "an initialiser", _instead("TopK"))
    k = numpy_helper.to_array(stored[0]).item()
    if k > 1024:
        return told(f"K={k}", "at most 1024", CUT)
    return _floats(view, node)


def _floats(view: View, node: onnx.NodeProto) -> str | None:
    dtype = view.dtype(node.input[0])
    return None if dtype in FLOATS else told(f"{dtype} input", "float32 or float16", "put a Cast to float before it")


def where_types(view: View, node: onnx.NodeProto) -> str | None:
    left, right = (view.dtype(name) for name in node.input[1:3])
    if left != right:
        return told(f"{left} and {right}", "equal types", "put a Cast before it")
    return told("bool data", "numbers", f"write it as And and Or, {CUT}") if left == "bool" else None


def reduce_axes(view: View, node: onnx.NodeProto) -> str | None:
    axes = attributes(node).get("axes", [])
    if len(node.input) > 1 and node.input[1] in view.constants:
        axes = numpy_helper.to_array(view.constants[node.input[1]])
    return None if len(axes) else told("no constant axes", "a list of them", "write every axis out")


def transpose_perm(view: View, node: onnx.NodeProto) -> str | None:
    return None if "perm" in attributes(node) else told("no perm", "one", "write the order of the axes out")


def softmax_axis(view: View, node: onnx.NodeProto) -> str | None:
    return None if "axis" in attributes(node) else told("no axis", "one", "write the axis out: its default changed")

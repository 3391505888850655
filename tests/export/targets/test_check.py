"""check, require and check_range: what passes, what cannot be judged, and how refusals read."""

import math

import onnx
import pytest
from onnx import parser

from edgekit.errors import ExportError, UnknownName
from edgekit.export.targets.check import Refusal, check, check_range, require

CUT = "cut before this layer or choose another device"


def graph(nodes, x="float[2,4,8,8] x", y="float[] y", stored="", ir=7, opsets='"": 11'):
    return parser.parse_model(f"<ir_version: {ir}, opset_import: [{opsets}]> g ({x}) => ({y}) <{stored}> {{ {nodes} }}")


def zeros(name, *shape):
    return f"float[{','.join(map(str, shape))}] {name} = {{{','.join(['0'] * math.prod(shape))}}}"


STRICT = """
    a = Conv<kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1], group=1>(x, kernel, bias)
    b = Clip(a, low, high)
    c = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0]>(b)
    d = HardSigmoid<alpha=0.1666, beta=0.5>(c)
    e = Mul(c, d)
    f = ReduceMean<axes=[2,3], keepdims=0>(e)
    g = Gemm<transB=1>(f, matrix, offset)
    h = Softmax<axis=1>(g)
    i = Reshape(h, image)
    j = Mul(e, i)
    k = Transpose<perm=[0,1,3,2]>(j)
    l = ConvTranspose<kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1], group=1>(k, widen)
    m = Slice(l, one, four, one)
    n = Concat<axis=1>(m, m)
    o = Conv<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1], group=2>(n, codebook, norms)
    p = Reshape(o, words)
    q = ArgMin<axis=2, keepdims=0>(p)
    codes = Cast<to=6>(q)
"""
WEIGHTS = {
    "kernel": (4, 3, 3, 3), "bias": (4,), "matrix": (4, 4), "offset": (4,), "widen": (4, 4, 2, 2),
    "codebook": (8, 3, 1, 1), "norms": (8,),
}  # fmt: skip
CONSTANTS = (
    "float low = {0}, float high = {6}, int64[4] image = {-1, 4, 1, 1}, int64[1] one = {1}, int64[1] four = {4}, "
    "int64[5] words = {-1, 2, 4, 8, 8}"
)


def test_a_graph_that_every_board_takes(board):
    stored = ", ".join([CONSTANTS, *(zeros(name, *shape) for name, shape in WEIGHTS.items())])
    model = graph(STRICT, "float[2,3,8,8] x", "int32[2,2,8,8] codes", stored)
    onnx.checker.check_model(model, full_check=True)
    assert check(model, board(), {}, WEIGHTS) == []
    require(model, board(), {}, WEIGHTS)


def test_a_board_that_asks_for_little(board):
    model = graph("y = Elu(x)", x="float[n,4] x")
    assert check(model, board(rules=(), operators=(), static=False), {}) == []


def test_what_cannot_be_judged_is_refused(board):
    nodes = "[n] z = Strange(x) [m] i = Cast<to=6>(z) [k] d = Div(z, z) [q] y = ArgMin<axis=1, keepdims=0>(i)"
    rules = ("integer-arithmetic", "arg-reduce", "int32-output")
    refusals = check(
        graph(nodes, y="int64[] y, float[] d"), board(rules=rules, operators=(), static=False), {"k": "head"}
    )
    assert refusals[:2] == [
        Refusal("integer-arithmetic", "k", "Div", "head", f"got 'z' of unknown type, expected a known one: {CUT}"),
        Refusal("arg-reduce", "q", "ArgMin", "", f"got 'i' of unknown rank, expected a known one: {CUT}"),
    ]
    (refusal,) = check(
        graph("[n] y = Strange(x)", y="y"), board(rules=("int32-output",), operators=(), static=False), {}
    )
    assert "got output 'y' in an unknown type from Strange" in refusal.message


def test_require_names_the_first_five(board):
    nodes = " ".join(f"[n{i}] y{i} = Elu(x)" for i in range(7))
    layers = {f"n{i}": f"act{i}" for i in range(7)}
    model = graph(nodes, x="float[n,4] x", y="float[] y0")
    with pytest.raises(ExportError) as raised:
        require(model, board(), layers)
    assert raised.value.exit_code == 4
    head, *lines = str(raised.value).splitlines()
    assert head == "strict (A strict board) does not take this graph:"
    assert lines[0] == (
        "  input 'x', rule static-shapes: got 'x' of shape (n,4), expected every size a positive integer: "
        "export with a fixed batch and image size"
    )
    assert lines[1] == (
        "  Elu 'n0' of layer 'act0', rule operators: got operator Elu, expected one of the 30 of the converter: "
        "cut before this layer or choose another device"
    )
    assert len(lines) == 6
    assert lines[5] == "  and 3 more"
    with pytest.raises(
        ExportError, match=r"\n  graph, rule opset: got opset 15, expected 11: export again for this device$"
    ):
        require(graph("y = Relu(x)", opsets='"": 15'), board(), {})


@pytest.mark.parametrize("score", [9000.0, 8188.0, math.inf, math.nan])
def test_scores_beyond_float16(board, score):
    refusal = check_range(score, board())
    assert str(refusal) == (
        f"graph, rule fp16-range: got scores up to {score:.4g}, expected less than 8188, an eighth of float16's "
        "largest number: put a ReLU6 or a batch norm before the cut, or cut elsewhere"
    )
    assert check_range(score, board(precision="float32")) is None
    assert check_range(score, board(rules=())) is None


def test_scores_within_float16(board):
    assert check_range(8187.0, board()) is None


def test_a_profile_with_a_rule_that_there_is_not(board):
    with pytest.raises(UnknownName, match="unknown board rule 'conv-constnat': did you mean conv-constant"):
        check(graph("y = Relu(x)"), board(rules=["conv-constnat"]), {})


def test_shapes_that_contradict_each_other(board):
    with pytest.raises(ExportError, match=r"shape inference refuses the deployed graph: .*Incompatible dimensions"):
        check(graph("y = Add(x, w)", stored=zeros("w", 3)), board(), {})

"""What each board rule refuses, and in which words: every graph of the table is held to all rules at once."""

import math
from typing import NamedTuple

import onnx
import pytest
from onnx import parser

from edgekit.export.targets.check import ALWAYS, BOARD_RULES, check


def graph(nodes, x="float[2,4,8,8] x", y="float[] y", stored="", ir=7, opsets='"": 11'):
    return parser.parse_model(f"<ir_version: {ir}, opset_import: [{opsets}]> g ({x}) => ({y}) <{stored}> {{ {nodes} }}")


def zeros(name, *shape):
    return f"float[{','.join(map(str, shape))}] {name} = {{{','.join(['0'] * math.prod(shape))}}}"


def conv(
    kernel_shape="1,1", strides="1,1", pads="0,0,0,0", dilations="1,1", more="", x="2,4,8,8", w=(4, 4, 1, 1), op="Conv"
):
    written = {"kernel_shape": kernel_shape, "strides": strides, "pads": pads, "dilations": dilations}
    lists = ", ".join(f"{name}=[{sizes}]" for name, sizes in written.items() if sizes)
    return graph(f"[n] y = {op}<{lists}, group=1{more}>(x, w)", x=f"float[{x}] x", stored=zeros("w", *w))


def pool(kernel="2,2", strides="strides=[2,2]", more="", x="2,4,8,8", op="MaxPool", outputs="y"):
    lists = f"kernel_shape=[{kernel}], pads=[0,0,0,0]" + "".join(f", {text}" for text in (strides, more) if text)
    return graph(f"[n] {outputs} = {op}<{lists}>(x)", x=f"float[{x}] x")


def codes(attributes, x="2,4,8,8", op="ArgMin"):
    return graph(f"[n] i = {op}<{attributes}>(x) y = Cast<to=6>(i)", x=f"float[{x}] x", y="int32[] y")


def integers(node, stored=""):
    """`node` makes z of i, which is int32 (2,4)."""
    return graph(f"i = Cast<to=6>(x) [n] {node} y = Cast<to=6>(z)", x="float[2,4] x", y="int32[] y", stored=stored)


def matrices(node, *stored):
    return graph(node, x="float[2,4] x", stored=", ".join(stored or [zeros("w", 4, 4)]))


class Case(NamedTuple):
    """A graph that `rule` refuses at `node`; the rules `besides` refuse it as well."""

    rule: str
    model: onnx.ModelProto
    message: str
    node: str = "n"
    besides: tuple[str, ...] = ()
    replaceable: tuple[str, ...] = ()


CUT = "cut before this layer or choose another device"
AGAIN = "export again for this device"
SIZES = "expected every size a positive integer"
LIST = "expected one of the 30 of the converter"
WRITTEN = "expected every attribute written out: write what is the default as well"
SMALLER = f"choose a smaller one, {CUT}"
FLOATS = "expected float32 or float16: put a Cast to float before it"
AXES = "expected one of the last four, not the first: put a Transpose before it"
CASTS = "expected float, or int32 from a Cast: end with Cast(to=INT32)"
SLOW = "expected none that fails or falls to a slow processor"
STORED = "expected kernel and bias as initialisers: store them in the graph"
BOUNDS = "expected both bounds as initialisers: store the bound in the graph"
ONE_BY_ONE = f"expected a kernel of the whole input: use larger images, {CUT}"
REFITTED = f"got 'w', which is refitted, expected it in a Conv or in a Gemm with transB=1: use a 1x1 convolution, {CUT}"
ONCE = "expected once: give each layer its own weights, or cut before both"
BRANCHES = "then_branch = a () => (float[1] t) { t = Relu(x) }, else_branch = b () => (float[1] e) { e = Relu(x) }"
K = "int64[1] k = {2}"
W = zeros("w", 4)
CASES = [
    Case("opset", graph("y = Relu(x)", opsets='"": 15'), f"got opset 15, expected 11: {AGAIN}", ""),
    Case("opset", graph("y = Relu(x)", ir=8), f"got IR version 8, expected at most 7: {AGAIN}", ""),
    Case("static-shapes", graph("z = Relu(x) y = Relu(z)", x="float[n,4,8,8] x"),
         f"got 'x' of shape (n,4,8,8), {SIZES}: export with a fixed batch and image size", "x"),
    Case("static-shapes", graph("[n] z = Slice(x, a, a, a) y = Relu(z)", stored="int64[1] a = {1}"),
         f"got 'z' of shape (2,0,8,8), {SIZES}: {CUT}"),
    Case("static-shapes", graph("[n] z = HardSwish(x) y = Identity(z)"),
         f"got 'z' of shape (?), {SIZES}: {CUT}", "n", ("avoid",)),
    Case("operators", graph("[n] y = Elu(x)"), f"got operator Elu, {LIST}: {CUT}"),
    Case("operators", graph("[n] y, z = Split<axis=1>(x)"),
         f"got operator Split, {LIST}: write it as one Slice per piece, {CUT}"),
    Case("operators", graph("[n] y = our.Relu(x)", y="float[2] y", opsets='"": 11, "our": 1'),
         f"got our.Relu, expected operators of ONNX's own domain: {CUT}"),
    Case("operators", graph(f"[n] y = If<{BRANCHES}>(c)", x="float[1] x", stored="bool[1] c = {1}"),
         f"got a graph inside, expected none, since no board rule looks there: write it without control flow, {CUT}"),
    Case("float32-input", graph("y = Cast<to=1>(x)", x="uint8[2,4] x"),
         "got uint8, expected float32: convert on the host, before the graph", "x"),
    Case("int32-output", graph("[n] y = ArgMin<axis=1, keepdims=0>(x)", y="int64[] y"),
         f"got output 'y' in int64 from ArgMin, {CASTS}"),
    Case("int32-output", graph("i = Cast<to=6>(x) [n] y = Identity(i)", y="int32[] y"),
         f"got output 'y' in int32 from Identity, {CASTS}"),
    Case("int32-output", graph("z = Relu(x)", y="int32[2] i", stored="int32[2] i = {1, 2}"),
         f"got output 'i' in int32 from no node, {CASTS}", "i"),
    Case("arg-reduce", codes("axis=1"), "got keepdims=1, expected 0: write keepdims=0, and a Reshape after it"),
    Case("arg-reduce", codes("axis=1, keepdims=0, select_last_index=1"),
         "got select_last_index=1, expected 0: take the first among equals"),
    Case("arg-reduce", codes("keepdims=0", op="ArgMax"), f"got axis 0 of 4, {AXES}"),
    Case("arg-reduce", codes("axis=-5, keepdims=0", x="2,3,4,5,6,7"), f"got axis 1 of 6, {AXES}"),
    Case("arg-reduce", codes("axis=0, keepdims=0", x="4"),
         "got an input of 1 dimension, expected at least 2: put a Reshape before it"),
    Case("arg-reduce", integers("z = ArgMin<axis=1, keepdims=0>(i)"), f"got int32 input, {FLOATS}"),
    Case("topk", graph("[n] y, i = TopK<largest=0>(x, k)", stored=K),
         "got largest=0, expected 1, which is what converters take it for: negate the input"),
    Case("topk", graph("[n] y, i = TopK<sorted=0>(x, k)", stored=K), "got sorted=0, expected 1: sort"),
    Case("topk", graph("[n] y, i = TopK(x, k)", x="float[2,2000] x", stored="int64[1] k = {1025}"),
         f"got K=1025, expected at most 1024: {CUT}"),
    Case("topk", graph("k = Cast<to=7>(f) [n] y, i = TopK(x, k)", stored="float[1] f = {2}"),
         f"got K at run time, expected an initialiser: write it as ArgMin or ArgMax, {CUT}", "n", ("static-shapes",)),
    Case("topk", integers("z, j = TopK(i, k)", stored=K), f"got int32 input, {FLOATS}"),
    Case("gemm-bias", matrices("[n] y = Gemm<transB=1>(x, w)"),
         "got no bias, expected one: give the layer a bias, of zeros if need be"),
    Case("gemm-bias", matrices("[n] y = Gemm<transB=1, alpha=0.5>(x, w, b)", zeros("w", 4, 4), zeros("b", 4)),
         "got alpha=0.5, expected 1: multiply it into the weights"),
    Case("conv-explicit", conv(pads="", dilations=""), f"got no pads, dilations, {WRITTEN}", "n", ("conv-ascend",)),
    Case("conv-explicit", conv(strides="", op="ConvTranspose"), f"got no strides, {WRITTEN}"),
    Case("conv-explicit", conv(more=', auto_pad="VALID"'),
         "got auto_pad=VALID, expected none: write the pads out", "n", ("conv-ascend",)),
    Case("conv-constant", graph(
         "w = Relu(v) "
         "[n] y = ConvTranspose<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1], group=1>(x, w, b)",
         x="float[2,4,8,8] x, float[4] b", stored=zeros("v", 4, 4, 1, 1)),
         f"got 'w' and 'b' at run time, {STORED}"),
    Case("conv-ascend", conv(kernel_shape="1,256", x="1,1,1,300", w=(1, 1, 1, 256)),
         f"got kernel 256, expected at most 255: {SMALLER}"),
    Case("conv-ascend", conv(strides="64,1", x="2,4,70,8"), f"got stride 64, expected at most 63: {SMALLER}"),
    Case("conv-ascend", conv(pads="0,256,0,0"), f"got pad 256, expected at most 255: {SMALLER}"),
    Case("conv-ascend", conv(kernel_shape="2,1", dilations="256,1", x="2,4,300,8", w=(4, 4, 2, 1)),
         f"got dilation 256, expected at most 255: {SMALLER}"),
    Case("conv-ascend", conv(x="1,4,1,4097"), f"got input width 4097, expected at most 4096: {SMALLER}"),
    Case("conv-ascend", conv(x="2,4,8,1"), f"got an output of 8x1, expected a width above 1, or 1x1: {CUT}"),
    Case("conv-ascend", conv(kernel_shape="3,3", strides="2,2", pads="1,1,1,1", x="2,4,2,2", w=(4, 4, 3, 3)),
         f"got a kernel of 3x3 on 4x4 (padded) for an output of 1x1, {ONE_BY_ONE}"),
    Case("conv-ascend", conv("1", "1", "0,0", "1", x="2,4,8", w=(4, 4, 1)),
         f"got 'x' of 3 dimensions, expected 4: {CUT}"),
    Case("pool-plain", pool(outputs="y, i"), f"got an output of indices, expected none: pool without indices, {CUT}"),
    Case("pool-plain", pool(more="dilations=[1,2]"), f"got dilation 2, expected 1: pool without dilation, {CUT}"),
    Case("pool-plain", pool(more="storage_order=1"), f"got storage_order=1, expected 0: {CUT}"),
    Case("pool-plain", pool(more="count_include_pad=1", op="AveragePool"),
         "got count_include_pad=1, expected 0: write a Pad before the pooling"),
    Case("pool-plain", pool(strides=""), f"got no strides, {WRITTEN}", "n", ("pool-ascend",)),
    Case("pool-ascend", pool("256,1", x="2,4,300,8"), f"got kernel 256, expected at most 255: {SMALLER}"),
    Case("pool-ascend", pool("17,16", x="2,4,20,20"), f"got kernel area 272, expected at most 256: {SMALLER}"),
    Case("pool-ascend", pool(strides="strides=[1,64]", op="AveragePool"),
         f"got stride 64, expected at most 63: {SMALLER}"),
    Case("pool-ascend", pool(x="1,1,2,4097"), f"got input width 4097, expected at most 4096: {SMALLER}"),
    Case("clip-bounds", graph("[n] y = Clip(x, low)", stored="float low = {0}"), f"got no constant maximum, {BOUNDS}"),
    Case("clip-bounds", graph("low = Relu(f) [n] y = Clip(x, low, f)", stored="float f = {6}"),
         f"got no constant minimum, {BOUNDS}"),
    Case("no-batch-norm", graph("[n] y = BatchNormalization(x, w, w, w, w)", stored=W),
         "got a batch norm, expected none: fold it into the convolution before it"),
    Case("integer-arithmetic", integers("z = Div(i, i)"),
         f"got Div on int32 'i', expected floats: put a Cast to float before it, {CUT}", "n", ("integer-free",)),
    Case("integer-arithmetic", integers("z = ReduceMax<axes=[1]>(i)"),
         f"got ReduceMax on int32 'i', expected floats: put a Cast to float before it, {CUT}", "n", ("integer-free",)),
    Case("integer-free", integers("z = Add(i, i)"),
         f"got Add on int32 'i', expected no arithmetic on integers: compute in float or on the host, {CUT}"),
    Case("avoid", graph("[n] y = GatherND(x, i)", stored="int64[1,2] i = {1, 1}"),
         f"got operator GatherND, {SLOW}: write it as Gather along one axis, {CUT}"),
    Case("avoid", graph("[n] y = HardSwish(x)", y="float[2,4,8,8] y"), f"got operator HardSwish, {SLOW}: write it as "
         f"x * HardSigmoid(x; alpha=1/6, beta=0.5), a HardSigmoid and a Mul, {CUT}"),
    Case("where-types", graph("c = Cast<to=9>(x) i = Cast<to=6>(x) [n] y = Where(c, x, i)"),
         "got float32 and int32, expected equal types: put a Cast before it"),
    Case("where-types", graph("c = Cast<to=9>(x) [n] z = Where(c, c, c) y = Cast<to=1>(z)"),
         f"got bool data, expected numbers: write it as And and Or, {CUT}"),
    Case("reduce-axes", graph("[n] y = ReduceMean(x)"),
         "got no constant axes, expected a list of them: write every axis out"),
    Case("transpose-perm", graph("[n] y = Transpose(x)"), "got no perm, expected one: write the order of the axes out"),
    Case("softmax-axis", graph("[n] y = Softmax(x)"),
         "got no axis, expected one: write the axis out: its default changed"),
    Case("refit-names", matrices("[m] z = Add(x, w) [n] y = Mul(z, w)", W), f"got 'w' read 2 times (m, n), {ONCE}",
         replaceable=("w",)),
    Case("refit-names", matrices("y = Relu(x)", W), f"got 'w' read 0 times, {ONCE}", "w", replaceable=("w",)),
    Case("refit-names", matrices("y = Relu(x)"), "got no such initialiser, expected one: export again", "lost",
         replaceable=("lost",)),
    Case("refit-layout", matrices("[n] y = MatMul(x, w)"), REFITTED, replaceable=("w",)),
    Case("refit-layout", matrices("[n] y = Gemm(x, w, b)", zeros("w", 4, 4), zeros("b", 4)), REFITTED,
         replaceable=("b", "w")),
    Case("refit-layout", graph("[n] y = BatchNormalization(x, w, b, b, b)", stored=f"{W}, {zeros('b', 4)}"), REFITTED,
         "n", ("no-batch-norm",), replaceable=("w",)),
    Case("conv-transpose-plain", conv(dilations="2,2", op="ConvTranspose"),
         f"got dilation 2, expected 1: choose a larger kernel, {CUT}"),
    Case("conv-transpose-plain", conv("1", "1", "0,0", "1", x="2,4,8", w=(4, 4, 1), op="ConvTranspose"),
         f"got an input of 3 dimensions, expected 4: {CUT}"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.rule}" for i, case in enumerate(CASES)])
def test_refusal(board, case):
    refusals = check(case.model, board(), {"n": "features.3"}, case.replaceable)
    assert {refusal.rule for refusal in refusals} == {case.rule, *case.besides}
    (refusal,) = (refusal for refusal in refusals if refusal.rule == case.rule)
    assert refusal.message == case.message
    assert refusal.node == case.node
    assert refusal.layer == ("features.3" if case.node == "n" else "")
    if case.rule in BOARD_RULES:
        without = board(rules=[rule for rule in BOARD_RULES if rule != case.rule])
        assert {refusal.rule for refusal in check(case.model, without, {}, case.replaceable)} == set(case.besides)


def test_every_rule_is_broken_above():
    # The range of the scores is no matter of the graph: test_scores_beyond_float16 in test_check.py.
    assert {case.rule for case in CASES} | {"fp16-range"} == {*BOARD_RULES, *ALWAYS}
    assert not set(BOARD_RULES) & set(ALWAYS)
    assert all(rule.what and "\n" not in rule.what for rule in [*BOARD_RULES.values(), *ALWAYS.values()])

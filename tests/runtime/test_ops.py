"""The operators of the reference backend against ONNX Runtime (onnx.reference where that lacks one)."""

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.errors import BackendError
from edgekit.runtime.backends.reference.backend import Reference
from edgekit.runtime.backends.reference.ops import BEFORE_13, OPERATORS
from edgekit.tensors import TensorSpec


def f32(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def i64(*values):
    return np.array(values, dtype=np.int64)


def whole(*shape, seed=0):
    """Few different values, so that there are ties."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def case(op, *inputs, opset=13, outputs=1, **attributes):
    """inputs: arrays (fed), None (omitted), or [array] (an initialiser)."""
    return pytest.param(op, inputs, opset, outputs, attributes, id=f"{op}-{opset}")


X = f32(2, 4, 7, 6)
TRUE, FALSE = np.array([True, False]), np.array([[True], [False]])
INTS = np.array([[7, -7, 6], [-7, 7, 0]], dtype=np.int32)
DIVISORS = np.array([[2, 2, -3], [-2, -2, 5]], dtype=np.int32)
BN = [f32(4, seed=1), f32(4, seed=2), f32(4, seed=3), np.abs(f32(4, seed=4)) + 0.5]

CASES = [
    case("Conv", X, [f32(5, 4, 3, 3)]),
    case("Conv", X, [f32(5, 4, 3, 3)], [f32(5)], pads=[1, 0, 2, 1], strides=[2, 1], kernel_shape=[3, 3]),
    case("Conv", X, [f32(6, 2, 3, 2)], [f32(6)], group=2, dilations=[2, 3], pads=[2, 2, 2, 2]),
    case("Conv", X, f32(4, 1, 3, 3), group=4, strides=[2, 2], pads=[1, 1, 1, 1], auto_pad="NOTSET"),
    case("Conv", X, [f32(8, 1, 1, 1)], group=4, opset=11),
    case("Conv", f32(2, 3, 9), [f32(4, 3, 3)], pads=[1, 1]),
    case("ConvTranspose", X, [f32(4, 3, 3, 3)], [f32(3)]),
    case("ConvTranspose", X, [f32(4, 3, 3, 3)], strides=[2, 2], pads=[1, 0, 1, 2], output_padding=[1, 1]),
    case("ConvTranspose", X, [f32(4, 2, 3, 2)], [f32(4)], group=2, strides=[2, 3], dilations=[2, 1], pads=[0, 1, 1, 0]),
    case("ConvTranspose", X, f32(4, 1, 3, 3), group=4, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[0, 1]),
    case("MatMul", f32(3, 4), f32(4, 5)),
    case("MatMul", f32(2, 1, 3, 4), f32(5, 4, 2)),
    case("MatMul", f32(4), f32(2, 4, 3)),
    case("Gemm", f32(3, 4), f32(4, 5)),
    case("Gemm", f32(4, 3), f32(5, 4), f32(5), transA=1, transB=1, alpha=0.5, beta=-2.0),
    case("Gemm", f32(3, 4), f32(4, 5), f32(3, 1), opset=11),
    case("BatchNormalization", X, *([a] for a in BN), epsilon=0.01),
    case("BatchNormalization", X, *BN, opset=15, outputs=3, training_mode=1, momentum=0.8),
    case("BatchNormalization", f32(6, 4), *BN, opset=15),
    case("Relu", X),
    case("Clip", X, np.array(-0.5, dtype=np.float32), np.array(0.5, dtype=np.float32)),
    case("Clip", X, None, np.array(0, dtype=np.float32)),
    case("Clip", INTS, np.array(-1, dtype=np.int32)),
    case("Clip", X),
    case("LeakyRelu", X),
    case("LeakyRelu", X, alpha=0.3),
    case("PRelu", X, f32(4, 1, 1)),
    case("PRelu", X, [f32()], opset=16),
    case("Elu", X),
    case("Elu", X, alpha=0.3),
    case("Erf", X),
    case("Tanh", X * 5),
    case("Sigmoid", np.array([-200, -1, 0, 3, 200], dtype=np.float32)),
    case("HardSigmoid", X),
    case("HardSigmoid", X, alpha=0.7, beta=0.1),
    case("Add", X, f32(6)),
    case("Add", f32(), f32()),
    case("Sub", f32(3, 1), f32(1, 4)),
    case("Mul", X, f32(4, 1, 1)),
    case("Div", X, f32(7, 1)),
    case("Div", np.array([1, -1, 0], dtype=np.float32), np.zeros(3, dtype=np.float32)),
    case("Div", INTS, DIVISORS),
    case("Neg", X),
    case("Sqrt", np.abs(X)),
    case("Sqrt", -np.ones(2, dtype=np.float32)),
    case("Reciprocal", X),
    case("Exp", X * 50),
    case("Pow", np.abs(X), f32(6)),
    case("Pow", X, i64(2)),
    case("Pow", INTS, np.array([2.0], dtype=np.float32)),
    case("Abs", X),
    case("Sign", whole(3, 4)),
    case("Max", X, f32(6), f32(7, 1)),
    case("Max", X),
    case("Min", X, f32(6)),
    case("Where", FALSE, f32(2, 3), f32(3)),
    case("Equal", whole(4, 5), whole(5, seed=1)),
    case("Equal", i64(1, 2), i64(2)),
    case("Greater", whole(4, 5), whole(5, seed=1)),
    case("GreaterOrEqual", whole(4, 5), whole(5, seed=1)),
    case("Less", whole(4, 5), whole(5, seed=1)),
    case("LessOrEqual", whole(4, 5), whole(5, seed=1)),
    case("And", TRUE, FALSE),
    case("Or", TRUE, FALSE),
    case("Not", TRUE),
    case("Cast", X, to=TensorProto.INT32),
    case("Cast", TRUE, to=TensorProto.FLOAT),
    case("Cast", whole(5), to=TensorProto.BOOL),
    case("Cast", X, to=TensorProto.FLOAT16),
    case("Cast", INTS, to=TensorProto.INT64),
    case("ReduceMean", X, axes=[0, 2, 3], keepdims=0),
    case("ReduceMean", X, axes=[-1]),
    case("ReduceMean", X),
    case("ReduceMean", X + np.float32(1000), axes=[0]),
    case("ReduceSum", X, axes=[1], opset=11),
    case("ReduceSum", X, [i64(0, -1)], keepdims=0),
    case("ReduceSum", X, i64(2)),
    case("ReduceSum", X),
    case("ReduceSum", X, [np.zeros(0, dtype=np.int64)], noop_with_empty_axes=1),
    case("ReduceSum", INTS, [i64(1)]),
    case("ReduceMax", X, axes=[2, 3]),
    case("ReduceMin", X, axes=[1], keepdims=0),
    case("ReduceSumSquare", X, axes=[0, 2, 3], keepdims=0),
    case("ReduceSumSquare", X),
    case("ArgMax", whole(4, 5, 6), axis=1),
    case("ArgMin", whole(4, 5, 6)),
    case("ArgMin", whole(4, 5, 6), axis=-1, keepdims=0),
    case("ArgMax", whole(4, 5, 6), axis=1, keepdims=0, select_last_index=1),
    case("ArgMin", whole(4, 5, 6), axis=2, select_last_index=1),
    case("MaxPool", whole(2, 4, 7, 6), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", whole(2, 4, 7, 6), outputs=2, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("MaxPool", -np.abs(X), outputs=2, kernel_shape=[2, 2], dilations=[2, 3]),
    *(case("MaxPool", f32(1, 2, n, 9), outputs=2, kernel_shape=[2, 3], strides=[3, 2], pads=[1, 1, 1, 1], ceil_mode=1)
      for n in range(4, 9)),
    case("MaxPool", f32(2, 3, 9), kernel_shape=[3]),
    case("MaxUnpool", f32(1, 1, 2, 2), np.array([[[[5, 2], [8, 15]]]]), np.array([1, 1, 4, 4]), kernel_shape=[2, 2],
         strides=[2, 2]),
    case("MaxUnpool", f32(1, 1, 2, 2), np.array([[[[5, 2], [8, 15]]]]), kernel_shape=[2, 2], strides=[2, 2]),
    case("Size", f32(2, 3, 4)),
    case("AveragePool", X, kernel_shape=[2, 3]),
    case("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1),
    case("AveragePool", X, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 0, 1], ceil_mode=1, count_include_pad=1,
         opset=17),
    case("GlobalAveragePool", X),
    case("Gather", X, i64(3, -1, 0), axis=1),
    case("Gather", X, np.array(1, dtype=np.int64)),
    case("Gather", X, np.array([[0, 1], [5, -6]], dtype=np.int32), axis=-1),
    case("Slice", X, i64(1, 0), i64(2, 3)),
    case("Slice", X, i64(-3, 5), i64(2**62, -(2**62)), i64(2, -1), i64(1, -2)),
    case("Slice", X, i64(100, 0), i64(-100, -1), i64(3, 2), i64(-1, 3), opset=11),
    case("Slice", X, i64(5), i64(2), i64(1)),
    case("Concat", f32(2, 3), f32(2, 1), f32(2, 4), axis=1),
    case("Concat", f32(2, 3), axis=-1),
    case("Split", f32(6, 4), outputs=3),
    case("Split", f32(6, 4), outputs=2, axis=-1, split=[1, 3], opset=11),
    case("Split", f32(6, 4), [i64(1, 0, 5)], outputs=3),
    case("Reshape", X, i64(0, -1, 3)),
    case("Reshape", f32(2, 0, 3), i64(3, 0), opset=14, allowzero=1),
    case("Flatten", X),
    case("Flatten", X, axis=-1),
    case("Flatten", X, axis=0),
    case("Transpose", X),
    case("Transpose", X, perm=[1, 0, 3, 2]),
    case("Squeeze", f32(1, 3, 1, 2)),
    case("Squeeze", f32(1, 3, 1, 2), [i64(-2)]),
    case("Squeeze", f32(1, 3, 1, 2), axes=[0, 2], opset=11),
    case("Unsqueeze", f32(3, 2), [i64(0, -1)]),
    case("Unsqueeze", f32(3, 2), axes=[1, 3], opset=11),
    case("Pad", X, i64(0, 0, 1, 2, 0, 1, 0, 3)),
    case("Pad", X, i64(0, 0, 1, 2, 0, 1, 0, 3), np.array(-1.5, dtype=np.float32), mode="constant", opset=11),
    case("Pad", X, i64(0, 0, -1, 2, 0, -2, 0, -3)),
    case("Expand", f32(3, 1), i64(2, 1, 4)),
    case("Expand", f32(3, 4), i64(1)),
    case("Tile", f32(2, 3), i64(2, 3)),
    case("Shape", X),
    case("Shape", X, start=1, end=-1, opset=15),
    case("ConstantOfShape", i64(2, 3)),
    case("ConstantOfShape", i64(2), value=numpy_helper.from_array(i64(7))),
    case("Constant", value=numpy_helper.from_array(f32(2, 3))),
    case("Constant", value_float=1.5),
    case("Constant", value_floats=[1.5, 2.0]),
    case("Constant", value_int=3),
    case("Constant", value_ints=[3, 4]),
    case("Identity", X),
    case("Dropout", X, outputs=2),
    case("Dropout", X, ratio=0.25, opset=11),
    case("Dropout", X, np.array(0.5, dtype=np.float32), np.array(False)),
    case("LogSoftmax", X, axis=1),
    case("LogSoftmax", X * 100),
    case("Softmax", X, axis=1),
    case("Softmax", X * 100),
    case("Softmax", X, opset=11),
    case("Softmax", X, axis=-2, opset=11),
]  # fmt: skip


def build(op, inputs, opset, outputs, attributes):
    names = ["" if value is None else f"i{k}" for k, value in enumerate(inputs)]
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if isinstance(value, np.ndarray)}
    initializers = [
        numpy_helper.from_array(value[0], name)
        for name, value in zip(names, inputs, strict=True)
        if isinstance(value, list)
    ]
    node = helper.make_node(op, names, [f"o{k}" for k in range(outputs)], name="the node", **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph([node], "g", values, [onnx.ValueInfoProto(name=n) for n in node.output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model), feeds


def expected_of(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    return session.run(None, feeds)


def reference_of(model, feeds, outputs):
    inputs = tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in feeds.items())
    results = tuple(TensorSpec(f"o{k}", out.dtype.name, out.shape) for k, out in enumerate(outputs))
    return Reference(model.SerializeToString(), GraphSpec("one.onnx", inputs, (), (), results))


@pytest.mark.parametrize(("op", "inputs", "opset", "outputs", "attributes"), CASES)
def test_operator(op, inputs, opset, outputs, attributes):
    model, feeds = build(op, inputs, opset, outputs, attributes)
    expected = expected_of(model, feeds)
    before = {name: array.copy() for name, array in feeds.items()}
    backend = reference_of(model, feeds, expected)
    got = backend.run(feeds)
    for name, array in before.items():
        np.testing.assert_array_equal(feeds[name], array, err_msg="a feed was written to")
    for k, out in enumerate(expected):
        tolerance = 0 if out.dtype.kind != "f" else 1e-5
        np.testing.assert_allclose(
            got[f"o{k}"],
            out,
            rtol=tolerance,
            atol=tolerance * max(1, np.abs(out[np.isfinite(out)]).max(initial=0)),
        )


def test_every_operator_has_a_case():
    assert {param.values[0] for param in CASES} == set(OPERATORS)
    assert {param.values[0] for param in CASES if param.values[2] < 13} >= set(BEFORE_13)


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        (f32(1, 2, 2, 2), f32(1, 2, 3, 3), {}),  # larger than the input: a window over memory that is not its own
        (f32(1, 4, 5, 5), f32(4, 4, 3, 3), {"group": 2}),
        (f32(1, 2, 5, 5), f32(1, 2, 3, 3), {"strides": [0, 1]}),
        (f32(1, 2, 5, 5), f32(1, 2, 3, 3), {"pads": [-1, 0, 0, 0]}),
        (f32(1, 2, 5, 5), f32(1, 2, 3, 3), {"dilations": [-1, 1]}),
        (f32(1, 2, 5, 5), f32(1, 2, 3, 3), {"kernel_shape": [1, 1]}),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(x, w, attributes):
    model, feeds = build("Conv", (x, [w]), 13, 1, {})
    for attribute, value in attributes.items():
        model.graph.node[0].attribute.append(helper.make_attribute(attribute, value))
    with pytest.raises(BackendError, match="Conv 'the node'"):
        reference_of(model, feeds, [np.zeros((1, 1, 1, 1), dtype=np.float32)]).run(feeds)

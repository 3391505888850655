"""The reference backend: what it refuses, how it names failures, what it keeps and frees."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.errors import BackendError, ShapeError
from edgekit.runtime.backends.reference.backend import Reference
from edgekit.tensors import TensorSpec


def f32(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def backend(nodes, inputs=("x",), outputs=("y",), initializers=None, held=(), opset=13):
    initializers = initializers or {}

    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    def spec(name):
        return TensorSpec(name, "float32", (-1, 3))

    graph = helper.make_graph(
        nodes,
        "g",
        [info(name) for name in (*inputs, *held)],
        [info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    constants = tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in initializers.items())
    specs = [tuple(map(spec, names)) for names in (inputs, held, outputs)]
    return Reference(model.SerializeToString(), GraphSpec("front.onnx", specs[0], specs[1], constants, specs[2]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: backend([helper.make_node("Celu", ["x"], ["y"], name="act")]),
            "node 'act' is a Celu.*another backend",
        ),
        (lambda: backend([helper.make_node("Relu", ["x"], ["y"], domain="me")]), "'giving y' is a me::Relu"),
        (lambda: backend([helper.make_node("Relu", ["z"], ["y"])]), r"nothing before it gives \['z'\]"),
        (lambda: backend([helper.make_node("Relu", ["x"], ["z"])]), r"nothing in the graph gives.*\['y'\]"),
        (lambda: backend([helper.make_node("Relu", ["x"], ["y"])], opset=9), "operator set 9.*11 to 17"),
        (lambda: Reference(b"abc", GraphSpec("front.onnx", (), (), (), ())), "at byte"),
    ],
)
def test_graphs_it_cannot_run_are_refused_when_loaded(make, words):
    with pytest.raises(BackendError, match="front.onnx on reference: .*" + words):
        make()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            helper.make_node("MatMul", ["x", "x"], ["y"], name="product"),
            r"MatMul 'product' with inputs.*float32 \[2, 3\]",
        ),
        (helper.make_node("Gather", ["x", "c"], ["y"], name="rows"), "Gather 'rows'.*out of bounds"),
        (helper.make_node("Relu", ["x"], ["y"], nonsense=1), "Relu 'giving y'.*nonsense"),
        (helper.make_node("Relu", ["x", "c"], ["y"]), "Relu 'giving y'"),
        (helper.make_node("Relu", ["x"], ["y", "z"]), "gives 1 outputs"),
        (helper.make_node("Add", ["x", "c"], ["y"]), "types.*float32.*int64.*expected one type"),
        (helper.make_node("Conv", ["x", "x"], ["y"], group=0), "Conv"),
        (helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING), "data type 8"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"), "auto_pad SAME_UPPER"),
    ],
)
def test_failing_operators_are_named(node, words):
    failing = backend([node], initializers={"c": np.array([99])})
    with pytest.raises(BackendError, match="front.onnx on reference: .*" + words):
        failing.run({"x": f32(2, 3)})


def test_tensors_are_freed_and_outputs_are_copies():
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Identity", ["w"], ["y"]),
    ]
    w = f32(1, 3)
    some = backend(nodes, outputs=("c", "y"), initializers={"w": w})
    assert [set(step.free) for step in some._steps] == [{"x"}, set(), {"a", "b"}, set()]
    x = f32(2, 3, seed=5)
    first = some.run({"x": x})
    np.testing.assert_array_equal(first["c"], x + w + np.maximum(x + w, 0))
    first["y"][:] = 9
    np.testing.assert_array_equal(some.run({"x": x})["y"], w)


def test_overflow_gives_infinity_without_a_warning():
    some = backend([helper.make_node("Exp", ["x"], ["y"])])
    assert np.isinf(some.run({"x": np.full((1, 3), 1000, dtype=np.float32)})["y"]).all()


def test_constants_are_replaced_by_copies():
    some = backend([helper.make_node("Mul", ["x", "w"], ["y"])], initializers={"w": f32(1, 3)})
    x, w = f32(2, 3, seed=1), f32(1, 3, seed=2)
    some.set_weights({"w": w})
    kept = w.copy()
    w[:] = 0
    np.testing.assert_array_equal(some.run({"x": x})["y"], x * kept)
    with pytest.raises(ShapeError, match="'w' is float64"):
        some.set_weights({"w": np.zeros((1, 3))})

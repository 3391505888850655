"""The ONNX Runtime backend: constants that are folded away, failures, threads."""

import gc
import importlib.util
import weakref

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.errors import BackendError, ShapeError
from edgekit.runtime.backends.onnxruntime import OnnxRuntime
from edgekit.runtime.backends.reference.backend import Reference
from edgekit.tensors import TensorSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 6, 6)).astype(np.float32)
#: Every one of them is folded into the weight and bias of the convolution.
CONSTANTS = {
    "conv.weight": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bn.weight": RNG.normal(size=4).astype(np.float32),
    "bn.bias": RNG.normal(size=4).astype(np.float32),
    "bn.mean": RNG.normal(size=4).astype(np.float32),
    "bn.var": RNG.uniform(0.5, 2, size=4).astype(np.float32),
    "scale": RNG.normal(size=(1, 4, 1, 1)).astype(np.float32),
}
GRAPH = GraphSpec(
    "front.onnx",
    (TensorSpec("x", "float32", (-1, 3, 6, 6)),),
    (),
    tuple(TensorSpec(name, "float32", array.shape) for name, array in CONSTANTS.items()),
    (TensorSpec("y", "float32", (-1, 4, 6, 6)),),
)


def model(constants=None, raw=True):
    def tensor(name, array):
        if raw:
            return numpy_helper.from_array(array, name)
        return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel())

    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"]),
        helper.make_node("Mul", ["b", "scale"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "front",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 6, 6])],
        [tensor(name, array) for name, array in (constants or CONSTANTS).items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def run(constants):
    return OnnxRuntime(model(constants), GRAPH).run({"x": X})["y"]


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_a_new_constant_gives_what_a_model_exported_with_it_gives(name):
    backend = OnnxRuntime(model(), GRAPH)
    np.testing.assert_array_equal(backend.run({"x": X})["y"], run(CONSTANTS))
    changed = {name: CONSTANTS[name] * 2 + 1}
    backend.set_weights(changed)
    expected = run({**CONSTANTS, **changed})
    np.testing.assert_array_equal(backend.run({"x": X})["y"], expected)
    assert np.abs(expected - run(CONSTANTS)).max() > 0.1


def test_replacements_add_up_and_leave_the_callers_bytes_and_arrays_alone():
    original = model()
    kept = bytes(bytearray(original))
    backend = OnnxRuntime(original, GRAPH)
    changed = {name: array + 1 for name, array in CONSTANTS.items()}
    for name, array in changed.items():
        given = np.array(array, order="F")
        backend.set_weights({name: given})
        given[:] = np.nan
    np.testing.assert_array_equal(backend.run({"x": X})["y"], run(changed))
    assert original == kept


def test_it_agrees_with_the_reference_backend():
    ours, reference = OnnxRuntime(model(), GRAPH), Reference(model(), GRAPH)
    for _ in range(2):
        np.testing.assert_allclose(ours.run({"x": X})["y"], reference.run({"x": X})["y"], rtol=1e-4, atol=1e-5)
        for backend in (ours, reference):
            backend.set_weights({"conv.weight": CONSTANTS["conv.weight"][::-1]})


@pytest.mark.parametrize(
    ("data", "graph", "error", "words"),
    [
        (b"no model", GRAPH._replace(constants=()), BackendError, "does not load.*INVALID_PROTOBUF"),
        (b"no model", GRAPH, BackendError, "at byte.*export the graph again"),
        (model(raw=False), GRAPH, BackendError, "'bn.bias'.*export them as raw_data"),
        (
            model(),
            GRAPH._replace(inputs=()),
            BackendError,
            r"takes \['x'\] and gives \['y'\], its spec says \[\] and \['y'\]",
        ),
        (
            model(),
            GRAPH._replace(outputs=(TensorSpec("z", "float32", ()),)),
            BackendError,
            r"takes \['x'\] and gives \['y'\], its spec says \['x'\] and \['z'\]",
        ),
        (model(), GRAPH._replace(constants=(TensorSpec("q", "float32", ()),)), ShapeError, r"expected \['q'\]"),
        (model(), GRAPH._replace(constants=(TensorSpec("scale", "float32", (4,)),)), ShapeError, "'scale' is float32"),
    ],
)
def test_what_does_not_load_says_which_file_and_why(data, graph, error, words):
    with pytest.raises(error, match="(?s)front.onnx.*" + words):
        OnnxRuntime(data, graph)


def test_a_failing_run_gives_the_engines_message():
    graph = GRAPH._replace(inputs=(TensorSpec("x", "float32", (-1, -1, -1, -1)),))
    with pytest.raises(BackendError, match=r"front.onnx on onnxruntime: the run failed: ") as caught:
        OnnxRuntime(model(), graph).run({"x": X[:, :2]})
    assert "Got: 2 Expected: 3" in str(caught.value)


def test_a_replacement_that_does_not_load_changes_nothing(monkeypatch):
    backend = OnnxRuntime(model(), GRAPH)

    def refuse(data, batch):
        raise BackendError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "_start", refuse)
        with pytest.raises(BackendError):
            backend.set_weights({"scale": CONSTANTS["scale"] * 0})
    backend.set_weights({"bn.bias": CONSTANTS["bn.bias"] + 1})
    np.testing.assert_array_equal(backend.run({"x": X})["y"], run({**CONSTANTS, "bn.bias": CONSTANTS["bn.bias"] + 1}))


def test_options_of_the_session():
    options = OnnxRuntime(model(), GRAPH, threads=2)._sessions[None].get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_closing_frees_the_session():
    backend = OnnxRuntime(model(), GRAPH)
    session = weakref.ref(backend._sessions[None])
    backend.close()
    gc.collect()
    assert session() is None


def test_a_missing_engine_says_what_to_install(monkeypatch):
    assert OnnxRuntime.missing() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install onnxruntime" in (OnnxRuntime.missing() or "")

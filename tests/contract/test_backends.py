"""The contract of a backend, over everything registered: one in the table is tested by being there."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.deploy.board import MODULES, VENDOR
from edgekit.device_profiles.profile import RUNTIMES
from edgekit.errors import BackendError, ShapeError, UnknownName, UsageError
from edgekit.runtime.backends.base import Backend
from edgekit.runtime.backends.reference.backend import Reference
from edgekit.runtime.backends.registry import BACKENDS, BY_RUNTIME, backend_class
from edgekit.tensors import TensorSpec, check_all

RNG = np.random.default_rng(0)
CONSTANTS = {
    "weight": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bias": RNG.normal(size=4).astype(np.float32),
}
BOOK = RNG.normal(size=(8, 4)).astype(np.float32)
GRAPH = GraphSpec(
    "front.onnx",
    (TensorSpec("x", "float32", (-1, 3, 5, 5)),),
    (TensorSpec("book", "float32", (8, 4)),),
    tuple(TensorSpec(name, "float32", array.shape) for name, array in CONSTANTS.items()),
    (TensorSpec("feature", "float32", (-1, 4)), TensorSpec("codes", "int32", (-1,))),
)


def model() -> bytes:
    """The feature of an image, and the codeword with the largest product with it."""
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["conv"], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["feature"]),
        helper.make_node("Gemm", ["feature", "book"], ["score"], transB=1),
        helper.make_node("ArgMax", ["score"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["codes"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "front",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 5]),
            helper.make_tensor_value_info("book", TensorProto.FLOAT, [8, 4]),
        ],
        [
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("codes", TensorProto.INT32, ["n"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(made.SerializeToString())


def images(n):
    return np.random.default_rng(n).normal(size=(n, 3, 5, 5)).astype(np.float32)


def opened(backend_id):
    """A backend that has its codebook."""
    try:
        cls = backend_class(backend_id)
    except BackendError as error:
        pytest.skip(str(error))
    backend = cls(model(), GRAPH, 1)
    assert backend.backend_id == backend_id
    backend.set_weights({"book": BOOK})
    return backend


@pytest.fixture(params=sorted(BACKENDS))
def loaded(request):
    backend = opened(request.param)
    yield backend
    backend.close()


@pytest.fixture(params=sorted(set(BACKENDS) - {"null"}))
def computing(request):
    backend = opened(request.param)
    yield backend
    backend.close()


@pytest.mark.parametrize("n", [1, 3])
def test_run_gives_the_declared_outputs_and_its_time(loaded, n):
    outputs = loaded.run({"x": images(n)})
    check_all(GRAPH.outputs, outputs, "test")
    assert all(len(array) == n for array in outputs.values())
    assert loaded.last_run_s > 0


def test_values_are_those_of_numpy(computing):
    x = images(3)
    outputs = computing.run({"x": x})
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    conv = np.einsum("nchwij,mcij->nmhw", windows, CONSTANTS["weight"]) + CONSTANTS["bias"][:, None, None]
    feature = np.maximum(conv, 0).mean(axis=(2, 3))
    np.testing.assert_allclose(outputs["feature"], feature, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs["codes"], (feature @ BOOK.T).argmax(axis=1))


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"x": images(2)[:, :2]}, r"'x' is float32 \[2, 2, 5, 5\], expected float32 \[-1, 3, 5, 5\]"),
        ({"x": images(2).astype(np.float64)}, "'x' is float64"),
        ({}, r"expected \['x'\]"),
        ({"x": images(2), "z": images(2)}, r"got tensors \['x', 'z'\]"),
    ],
)
def test_wrong_feeds_are_named(loaded, feeds, words):
    with pytest.raises(ShapeError, match=f"front.onnx on {loaded.backend_id}.*{words}"):
        loaded.run(feeds)


def test_held_inputs_are_wanted_and_used(computing):
    bare = type(computing)(model(), GRAPH, 1)
    with pytest.raises(ShapeError, match=r"held inputs.*book"):
        bare.run({"x": images(2)})
    bare.close()
    x = images(6)
    before = computing.run({"x": x})["codes"].copy()
    computing.set_weights({"book": BOOK[::-1].copy()})
    np.testing.assert_array_equal(computing.run({"x": x})["codes"], 7 - before)


def test_what_is_kept_is_what_run_gives_and_outlives_later_runs(loaded):
    first, second = images(3), images(4)
    plain = {name: array.copy() for name, array in loaded.run({"x": first}).items()}
    kept = loaded.run_kept({"x": first})
    check_all(GRAPH.outputs, kept, "test")
    loaded.run({"x": second})
    loaded.run_kept({"x": first + 1})
    for name, array in plain.items():
        np.testing.assert_array_equal(kept[name].array(), array)


def test_what_is_placed_or_kept_can_be_fed(computing):
    x = images(3)
    plain = {name: array.copy() for name, array in computing.run({"x": x}).items()}
    for name, array in computing.run({"x": computing.place(x)}).items():
        np.testing.assert_array_equal(array, plain[name])
    other = type(computing)(model(), GRAPH, 1)
    other.set_weights({"book": computing.place(BOOK), "weight": computing.place(2 * CONSTANTS["weight"])})
    doubled = type(computing)(model(), GRAPH, 1)
    doubled.set_weights({"book": BOOK, "weight": 2 * CONSTANTS["weight"]})
    for name, array in other.run({"x": x}).items():
        np.testing.assert_array_equal(array, doubled.run({"x": x})[name])
    with pytest.raises(ShapeError, match=r"'x' is float32 \[3, 2, 5, 5\]"):
        other.run({"x": computing.place(x[:, :2])})
    other.close()
    doubled.close()


def test_a_provider_of_onnx_runtime_is_taken_by_it_alone(loaded):
    if loaded.backend_id == "onnxruntime":
        assert loaded.provider_for("auto", "cpu").name == "cpu"
        return
    assert loaded.provider_for("auto", "cuda").name == "cpu"
    with pytest.raises(UsageError, match=f"providers are ONNX Runtime's, and here {loaded.backend_id}"):
        loaded.provider_for("cuda", "cuda")


def test_constants_take_effect(computing):
    x = images(3)
    before = computing.run({"x": x})["feature"].copy()
    computing.set_weights({"weight": 2 * CONSTANTS["weight"], "bias": 2 * CONSTANTS["bias"]})
    np.testing.assert_allclose(computing.run({"x": x})["feature"], 2 * before, rtol=1e-5, atol=1e-5)
    computing.set_weights({"weight": np.zeros_like(CONSTANTS["weight"])})
    expected = np.broadcast_to(np.maximum(2 * CONSTANTS["bias"], 0), (3, 4))
    np.testing.assert_allclose(computing.run({"x": x})["feature"], expected, rtol=1e-5, atol=1e-5)
    computing.set_weights(CONSTANTS)
    np.testing.assert_allclose(computing.run({"x": x})["feature"], before, rtol=1e-5, atol=1e-5)


def test_wrong_weights_are_named(loaded):
    with pytest.raises(ShapeError, match=r"front.onnx has no weight 'wieght'; it has .*'book'.*'weight'"):
        loaded.set_weights({"wieght": CONSTANTS["weight"]})
    with pytest.raises(ShapeError, match=r"'bias' is float32 \[3\]"):
        loaded.set_weights({"bias": np.zeros(3, dtype=np.float32)})
    with pytest.raises(ShapeError, match="'book' is float64"):
        loaded.set_weights({"book": BOOK.astype(np.float64)})


def test_bytes_that_are_no_model_are_refused(computing):
    with pytest.raises(BackendError, match=f"front.onnx on {computing.backend_id}"):
        type(computing)(b"no model", GRAPH, 1)


def test_a_spec_that_is_not_the_graphs_is_refused(computing):
    for wrong in (
        GRAPH._replace(held=()),
        GRAPH._replace(outputs=(*GRAPH.outputs, TensorSpec("loss", "float32", ()))),
    ):
        with pytest.raises(BackendError, match=f"front.onnx on {computing.backend_id}"):
            type(computing)(model(), wrong, 1)
    with pytest.raises(ShapeError, match="initialisers"):
        type(computing)(model(), GRAPH._replace(constants=(TensorSpec("mean", "float32", (4,)),)), 1)


def test_two_of_one_graph_are_independent(computing):
    other = type(computing)(model(), GRAPH, 1)
    other.set_weights({"book": BOOK, "weight": 0 * CONSTANTS["weight"]})
    x = images(2)
    feature = computing.run({"x": x})["feature"].copy()
    other.run({"x": x})
    other.close()
    np.testing.assert_array_equal(computing.run({"x": x})["feature"], feature)


def test_backends_that_are_not_there_say_so(monkeypatch):
    with pytest.raises(UnknownName, match=r"unknown backend 'onnxruntim': did you mean onnxruntime\?"):
        backend_class("onnxruntim")
    monkeypatch.setattr(Reference, "missing", classmethod(lambda cls: "no numpy"))
    with pytest.raises(BackendError, match="'reference' cannot run here: no numpy"):
        backend_class("reference")
    assert issubclass(backend_class("null"), Backend)


def test_every_runtime_of_a_profile_has_one_backend():
    assert set(BY_RUNTIME) == set(RUNTIMES)
    assert len(BY_RUNTIME) == sum(bool(entry.runtime) for entry in BACKENDS.values())


def test_deploy_knows_where_every_library_comes_from():
    assert {entry.vendor for entry in BACKENDS.values()} - {None} == set(VENDOR)
    for entry in BACKENDS.values():
        assert set(entry.libraries) - {entry.vendor} <= set(MODULES)
        assert entry.vendor is None or entry.vendor in entry.libraries

"""The Ascend backend, through the emulator: values, call order, both generations of pyACL, rebuilds, threads, leaks."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.errors import BackendError
from edgekit.runtime import cache
from edgekit.runtime.backends.ascend import atc, calls, process
from edgekit.runtime.backends.ascend.backend import Ascend
from edgekit.runtime.backends.ascend.model import Model
from edgekit.runtime.backends.onnxruntime import OnnxRuntime
from edgekit.runtime.backends.registry import backend_class
from edgekit.tensors import TensorSpec
from tests.device.ascend.board import ROOT, board, environment
from tests.device.ascend.emulator import Emulator

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
BOOK = RNG.normal(size=(4, 8)).astype(np.float32)
X = RNG.normal(size=(2, 3, 5, 5)).astype(np.float32)
GRAPH = GraphSpec(
    "front.onnx",
    (TensorSpec("x", "float32", (2, 3, 5, 5)),),
    (TensorSpec("book", "float32", (4, 8)),),
    (TensorSpec("weight", "float32", WEIGHT.shape),),
    # Not in the order of the file.
    (TensorSpec("feature", "float32", (2, 4)), TensorSpec("codes", "int32", (2,))),
)
DEVICE = {
    "name": "atlas-200-dk",
    "versions": {"cann": "5.0.4", "soc_version": "Ascend310"},
    "target": {"precision": "float16"},
}


def model() -> bytes:
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["conv"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["conv"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["feature"]),
        helper.make_node("MatMul", ["feature", "book"], ["score"]),
        helper.make_node("ArgMax", ["score"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["codes"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "front",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 5, 5]),
            helper.make_tensor_value_info("book", TensorProto.FLOAT, [4, 8]),
        ],
        [
            helper.make_tensor_value_info("codes", TensorProto.INT32, [2]),
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, [2, 4]),
        ],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    return bytes(made.SerializeToString())


MODEL = model()


@pytest.fixture(params=["bytes", "numpy", "bytes on a host", "numpy on a host"])
def emulator(request, tmp_path, monkeypatch):
    """Every generation of pyACL, on a board itself and on a host with a card."""
    made = Emulator(bytes_api="bytes" in request.param, on_host="host" in request.param)
    with board(made, tmp_path, monkeypatch):
        yield made


@pytest.fixture
def one(tmp_path, monkeypatch):
    with board(Emulator(), tmp_path, monkeypatch) as made:
        yield made


def opened(device=DEVICE, graph=GRAPH):
    backend = Ascend(MODEL, graph, 1, device)
    backend.set_weights({"book": BOOK})
    return backend


def expected(weight=WEIGHT, book=BOOK, x=X):
    backend = OnnxRuntime(MODEL, GRAPH)
    backend.set_weights({"book": book, "weight": weight})
    return backend.run({"x": x})


def check(outputs, other):
    assert set(outputs) == {"codes", "feature"}
    np.testing.assert_array_equal(outputs["codes"], other["codes"])
    np.testing.assert_allclose(outputs["feature"], other["feature"], rtol=1e-6)
    assert outputs["codes"].dtype == np.int32 and outputs["feature"].dtype == np.float32


def test_runs_learns_and_frees_in_the_documented_order(emulator):
    backend = opened()
    check(backend.run({"x": X}), expected())
    check(backend.run({"x": X[::-1].copy()}), expected(x=X[::-1].copy()))
    backend.set_weights({"book": BOOK[:, ::-1].copy()})
    check(backend.run({"x": X}), expected(book=BOOK[:, ::-1].copy()))
    backend.set_weights({"weight": -WEIGHT})
    check(backend.run({"x": X}), expected(weight=-WEIGHT, book=BOOK[:, ::-1].copy()))
    assert backend.refreshes == 1 and backend.refresh_s > 0
    start = len(emulator.calls)
    backend.close()
    freed = emulator.calls[start:]
    order = ["acl_rt_set_context", "acl_destroy_data_buffer", "acl_mdl_destroy_dataset", "acl_rt_free",
             "acl_mdl_unload", "acl_mdl_destroy_desc", "acl_rt_destroy_context", "acl_rt_reset_device"]  # fmt: skip
    last = [len(freed) - 1 - freed[::-1].index(name) for name in order]
    assert last == sorted(last)
    assert emulator.calls[:4] == ["acl_init", "acl_get_soc_name", "acl_rt_set_device", "acl_rt_create_context"]
    assert emulator.calls.count("acl_init") == 1 and not emulator.codes
    backend.close()
    assert len(emulator.calls) == start + len(freed)


def test_outputs_are_memory_of_their_own(one):
    backend = opened()
    first = backend.run({"x": X})
    kept = {name: array.copy() for name, array in first.items()}
    backend.run({"x": -X})
    backend.close()
    check(first, kept)
    first["feature"][:] = 0


def test_types_of_outputs_are_read_when_it_runs(one, monkeypatch):
    monkeypatch.setenv("EMULATED_ATC_TYPES", "int32=int64,float32=float16")
    backend = opened()
    outputs, other = backend.run({"x": X}), expected()
    backend.close()
    assert outputs["codes"].dtype == np.int32 and outputs["feature"].dtype == np.float32
    np.testing.assert_array_equal(outputs["codes"], other["codes"])
    np.testing.assert_array_equal(outputs["feature"], other["feature"].astype(np.float16))


def test_an_output_of_another_kind_is_refused(one, monkeypatch):
    monkeypatch.setenv("EMULATED_ATC_TYPES", "int32=float16")
    with pytest.raises(BackendError, match=r"output 0 is float16 \[2\], expected 'codes' of int32 \[2\]"):
        opened()


def test_every_thread_gets_the_context(one):
    backend = opened()
    backend.run({"x": X})
    results = []
    for action in (lambda: backend.run({"x": X}), backend.close):
        thread = threading.Thread(target=lambda act=action: results.append(act()))
        thread.start()
        thread.join()
    check(results[0], expected())
    assert not one.codes


def test_two_graphs_share_the_device_and_one_init(one):
    first, second = opened(), opened()
    second.set_weights({"weight": 2 * WEIGHT})
    check(first.run({"x": X}), expected())
    second.close()
    check(first.run({"x": X}), expected())
    first.close()
    assert one.calls.count("acl_init") == 1 and one.calls.count("acl_rt_reset_device") == 1
    third = opened()
    check(third.run({"x": X}), expected())
    third.close()
    assert one.calls.count("acl_init") == 1 and not one.codes


def test_pyacl_that_somebody_else_started_is_left_to_them(one):
    module = sys.modules["acl"]
    assert module.init() == 0
    backend = opened()
    check(backend.run({"x": X}), expected())
    backend.close()
    process._process = None
    assert one.state == "initialised" and module.finalize() == 0


def test_a_backend_that_is_dropped_is_freed(one):
    opened().run({"x": X})
    # The fixture checks that nothing is left.


def test_equal_constants_and_the_next_start_compile_nothing(one, tmp_path, monkeypatch, capsys):
    record = tmp_path / "atc.jsonl"
    monkeypatch.setenv("EMULATED_ATC_RECORD", str(record))

    def runs():
        return len(record.read_text().splitlines())

    backend = opened()
    backend.set_weights({"weight": WEIGHT})
    assert runs() == 1
    backend.set_weights({"weight": 2 * WEIGHT})
    assert runs() == 2
    backend.set_weights({"weight": 3 * WEIGHT})
    backend.close()
    assert runs() == 3
    capsys.readouterr()
    backend = opened()
    assert runs() == 3 and capsys.readouterr().err == ""
    backend.set_weights({"weight": 3 * WEIGHT})
    assert runs() == 3
    backend.set_weights({"weight": 4 * WEIGHT})
    assert runs() == 4
    err = capsys.readouterr().err
    assert "was built for something else (model: kept " in err and "compiling, which takes minutes" in err
    backend.close()


def test_another_cann_compiles_anew_and_says_both(one, tmp_path, capsys):
    opened().close()
    info = tmp_path / "cann" / "aarch64-linux" / "ascend_toolkit_install.info"
    info.write_text("version=8.0.0\n")
    opened().close()
    assert "cann: kept 7.0.RC1, here 8.0.0" in capsys.readouterr().err


def test_an_om_compiled_elsewhere_is_used_where_there_is_no_atc(one, tmp_path, monkeypatch):
    opened().close()
    (tmp_path / "cann" / "bin" / "atc").unlink()
    backend = opened()
    check(backend.run({"x": X}), expected())
    with pytest.raises(BackendError, match=r"front.onnx on ascend: atc is not here .*set_env.sh.*compile on a host"):
        backend.set_weights({"weight": -WEIGHT})
    check(backend.run({"x": X}), expected())
    backend.close()


def test_a_rebuild_that_fails_changes_nothing(one, monkeypatch):
    backend = opened()
    with monkeypatch.context() as patch:
        patch.setenv("EMULATED_ATC_FAIL", "E19999: Unknown error occurred.")
        with pytest.raises(BackendError, match=r"front.onnx on ascend: atc ended with 255 .*E19999"):
            backend.set_weights({"weight": -WEIGHT})
    check(backend.run({"x": X}), expected())
    backend.set_weights({"weight": -WEIGHT})
    check(backend.run({"x": X}), expected(weight=-WEIGHT))
    backend.close()


def test_the_chip_must_be_the_profiles(tmp_path, monkeypatch):
    with board(Emulator(chip="Ascend310B1"), tmp_path, monkeypatch):
        with pytest.raises(BackendError, match=r"is for Ascend310 \(atlas-200-dk\), this board's chip is Ascend310B1"):
            opened()
        backend = opened(device=None)
        check(backend.run({"x": X}), expected())
        backend.close()


def test_a_damaged_om_is_translated(one, monkeypatch):
    monkeypatch.setattr(atc, "obtain", lambda *arguments: b"no om")
    words = r"load_from_file.* failed with 100012 DESERIALIZE_MODEL \(emulated words about 100012\): the .om is of"
    with pytest.raises(BackendError, match=r"front.onnx on ascend: acl.mdl." + words):
        opened()


def test_an_om_of_another_graph_is_refused(one):
    first = opened()
    kept = first._model
    with pytest.raises(BackendError, match=r"get_num_inputs gives 2, expected \['x'\]"):
        Model(process.process(), _om_of(one), GRAPH.inputs, GRAPH.outputs)
    shapes = [spec._replace(shape=(3, 3, 5, 5)) if spec.name == "x" else spec for spec in GRAPH.inputs + GRAPH.held]
    with pytest.raises(BackendError, match=r"input 0 is float32 \[2, 3, 5, 5\], expected 'x' of float32 \[3, "):
        Model(process.process(), _om_of(one), shapes, GRAPH.outputs[::-1])
    assert first._model is kept
    first.close()


def _om_of(emulator):
    """A file with the .om that the cache keeps."""
    name = next(name for name in os.listdir(cache.folder()) if name.endswith(".engine"))
    with open(os.path.join(cache.folder(), name), "rb") as file:
        _, om = cache.unpack(file.read())
    path = os.path.join(cache.folder(), "kept.om")
    with open(path, "wb") as file:
        file.write(om)
    return path


def test_without_cann_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "acl", None)
    assert "install CANN" in (calls.missing() or "") and "set_env.sh" in (Ascend.missing() or "")
    with pytest.raises(BackendError, match="pyACL does not load"):
        calls.load()
    with pytest.raises(BackendError, match="backend 'ascend' cannot run here: pyACL"):
        backend_class("ascend")


def test_a_module_acl_that_is_another(one, monkeypatch):
    monkeypatch.setitem(sys.modules, "acl", type(sys)("acl"))
    with pytest.raises(BackendError, match="is not pyACL"):
        calls.load()


def test_the_contract_of_backends_holds(tmp_path):
    """tests/contract over the registry, in a process where pyACL is there."""
    command = [sys.executable, "-m", "pytest", "tests/contract/test_backends.py", "-q", "-k", "ascend or not_there",
               "-p", "no:cacheprovider", "--noconftest"]  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "device" / "ascend" / "emulated")])
    record = tmp_path / "acl.jsonl"
    variables = {**os.environ, **environment(tmp_path), "PYTHONPATH": path, "EMULATED_ACL_RECORD": str(record)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout and "passed" in done.stdout
    assert '"left": {}' in record.read_text()

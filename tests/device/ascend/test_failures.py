"""Every call of pyACL fails in turn: the error names it, all that was allocated is freed, and work can go on."""

import gc
import re
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import GraphSpec
from edgekit.errors import BackendError
from edgekit.runtime.backends.ascend import calls, process
from edgekit.runtime.backends.ascend.backend import Ascend
from edgekit.tensors import TensorSpec
from tests.device.ascend.board import board
from tests.device.ascend.emulator import Emulator

GRAPH = GraphSpec(
    "front.onnx",
    (TensorSpec("x", "float32", (2, 4)),),
    (TensorSpec("book", "float32", (4,)),),
    (TensorSpec("scale", "float32", (1, 4)),),
    (TensorSpec("y", "float32", (2, 4)), TensorSpec("best", "int32", (2,))),
)
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def model() -> bytes:
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "book"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["best"], to=TensorProto.INT32),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "front",
        [value("x", TensorProto.FLOAT, [2, 4]), value("book", TensorProto.FLOAT, [4])],
        [value("y", TensorProto.FLOAT, [2, 4]), value("best", TensorProto.INT32, [2])],
        [numpy_helper.from_array(np.ones((1, 4), dtype=np.float32), "scale")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    return bytes(made.SerializeToString())


MODEL = model()


def scenario() -> None:
    """Opens two graphs, runs, changes weights, runs, closes."""
    first = Ascend(MODEL, GRAPH)
    try:
        first.set_weights({"book": np.zeros(4, dtype=np.float32)})
        np.testing.assert_array_equal(first.run({"x": X})["y"], X)
        first.set_weights({"scale": np.full((1, 4), 2, dtype=np.float32)})
        np.testing.assert_array_equal(first.run({"x": X})["y"], 2 * X)
    finally:
        first.close()


def settle(emulator: Emulator) -> None:
    """Ends the process that `emulator` is, and checks that it ended clean."""
    emulator.fail_at = -1
    process._process = None
    if "acl_finalize" not in emulator.calls:
        gc.collect()
    assert emulator.left() == {}
    assert emulator.state in ("finalized", "new")


def told(error: BaseException | None) -> str:
    """The messages of an error and of those that led to it."""
    words = []
    while error is not None:
        words.append(str(error))
        error = error.__cause__ or error.__context__
    return " / ".join(words)


@pytest.fixture
def quick_collection():
    """Collecting garbage a hundred times looks at what these tests make alone."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_collection")
@pytest.mark.parametrize("bytes_api", [True, False])
def test_every_call_fails_in_turn(bytes_api, tmp_path, monkeypatch):
    with board(Emulator(bytes_api), tmp_path, monkeypatch) as whole:
        scenario()
        calls = len(whole.calls)
        assert calls > 60
        failed = set()
        for k in range(calls):
            emulator = Emulator(bytes_api)
            emulator.fail_at = k
            monkeypatch.setitem(sys.modules, "acl", emulator.module())
            process._process = None
            try:
                scenario()
                words = ""
            except BackendError as error:
                words = told(error)
            name = whole.calls[k]
            failed.add(name)
            area = "".join(f"{part}." for part in ("rt", "mdl", "util") if name.startswith(f"acl_{part}_"))
            assert f"acl.{area}{name[len('acl_' + area) :]}" in words, (k, name, words)
            assert "500000 INTERNAL_ERROR" in words or "gave None" in words, (k, name, words)
            assert "emulated words about 500000" in words
            assert emulator.left() == {}, (k, name, emulator.left())
            # The next one works in the same process, where that is still to be started or was.
            if k % 10 == 0 and name != "acl_init":
                emulator.fail_at = -1
                scenario()
            settle(emulator)
        expected = {name for name in whole.calls if name not in ("acl_finalize", "acl_get_recent_err_msg")}
        assert failed == expected


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (200000, "BAD_ALLOC.*out of memory.*--static-batch"),
        (507899, "RT_DRV_INTERNAL_ERROR.*HwHiAiUser"),
        (200004, "RESOURCE_NOT_MATCH"),
        (107001, "RT_INVALID_DEVICEID.*npu-smi info"),
        (123456, "123456 a code that acl_base.h of CANN 8.1 does not list"),
    ],
)
def test_codes_become_advice(code, words, tmp_path, monkeypatch):
    emulator = Emulator()
    emulator.fail_at, emulator.fail_with = 2, code
    words = "(?s)front.onnx on ascend: .*" + words
    with board(emulator, tmp_path, monkeypatch), pytest.raises(BackendError, match=words):
        scenario()


def test_codes_have_the_names_of_the_headers():
    assert [name for name, _ in calls.CODES.values() if not re.fullmatch("[A-Z_]+", name)] == []


def test_a_full_disk_is_a_backend_error(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with board(Emulator(), tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("edgekit.runtime.backends.ascend.atc.tempfile.TemporaryDirectory", full)
            with pytest.raises(BackendError, match=r"No space left on device.*TMPDIR"):
                scenario()
        with monkeypatch.context() as patch:
            patch.setattr("edgekit.runtime.backends.ascend.backend.tempfile.NamedTemporaryFile", full)
            with pytest.raises(BackendError, match=r"front.onnx on ascend: .*No space left on device"):
                scenario()

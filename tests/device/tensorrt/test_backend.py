"""The TensorRT backend through emulators of TensorRT and CUDA: the contract of a backend, refit, build, every error."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, ShapeError
from edgekit.runtime.backends.registry import backend_class
from edgekit.runtime.backends.tensorrt import build
from edgekit.runtime.backends.tensorrt.backend import TensorRt
from edgekit.tensors import TensorSpec, check_all
from tests.device.tensorrt.board import (
    BOOK,
    CONSTANTS,
    GRAPH,
    HALF,
    RNG,
    Board,
    Maker,
    X,
    expected,
    model,
    opened,
    same,
)


@pytest.fixture
def backend(board: Board) -> Iterator[TensorRt]:
    backend = opened()
    yield backend
    backend.close()


class TestContract:
    """What tests/contract asks of every backend, for static shapes."""

    def test_it_is_registered_and_learns_elsewhere(self, board: Board) -> None:
        assert backend_class("tensorrt") is TensorRt and TensorRt.missing() is None
        assert TensorRt.learns_on == "onnxruntime"

    def test_run_gives_what_onnx_runtime_gives(self, backend: TensorRt) -> None:
        outputs = backend.run({"x": X})
        check_all(GRAPH.outputs, outputs, "test")
        same(outputs, expected())
        assert len(set(outputs["codes"])) > 1
        assert backend.last_run_s > 0
        # Later runs leave earlier outputs alone.
        other = backend.run({"x": 2 * X})
        same(outputs, expected())
        same(other, expected(x=2 * X))

    def test_a_smaller_batch_is_filled_up(self, backend: TensorRt) -> None:
        np.testing.assert_allclose(backend.run_batch({"x": X[:2]})["feature"], expected()["feature"][:2], rtol=1e-5)
        with pytest.raises(ShapeError, match="export it again with --static-batch 6"):
            backend.run_batch({"x": np.concatenate([X, X])})

    @pytest.mark.parametrize(
        ("feeds", "words"),
        [
            ({"x": X[:, :2]}, r"'x' is float32 \[3, 2, 5, 5\], expected float32 \[3, 3, 5, 5\]"),
            ({"x": X.astype(np.float64)}, "'x' is float64"),
            ({}, r"expected \['x'\]"),
        ],
    )
    def test_wrong_feeds_are_named(self, backend: TensorRt, feeds: Arrays, words: str) -> None:
        with pytest.raises(ShapeError, match=f"front.onnx on tensorrt.*{words}"):
            backend.run(feeds)

    def test_feeds_need_not_be_contiguous(self, backend: TensorRt) -> None:
        same(backend.run({"x": X.transpose(0, 1, 3, 2)}), expected(x=np.ascontiguousarray(X.transpose(0, 1, 3, 2))))

    def test_held_inputs_are_wanted_and_used(self, backend: TensorRt) -> None:
        bare = TensorRt(model(), GRAPH)
        with pytest.raises(ShapeError, match=r"held inputs.*book"):
            bare.run({"x": X})
        bare.close()
        backend.set_weights({"book": BOOK[::-1].copy()})
        assert backend.refreshes == 0
        same(backend.run({"x": X}), expected(book=BOOK[::-1]))

    def test_wrong_weights_are_named(self, backend: TensorRt) -> None:
        with pytest.raises(ShapeError, match=r"front.onnx has no weight 'wieght'"):
            backend.set_weights({"wieght": CONSTANTS["weight"]})
        with pytest.raises(ShapeError, match=r"'bias' is float32 \[3\]"):
            backend.set_weights({"bias": np.zeros(3, dtype=np.float32)})

    def test_two_of_one_graph_are_independent(self, backend: TensorRt) -> None:
        other = opened()
        other.set_weights({"weight": 0 * CONSTANTS["weight"]})
        other.run({"x": X})
        other.close()
        same(backend.run({"x": X}), expected())


class TestRefit:
    @pytest.mark.parametrize("names", [["weight"], ["bias"], ["mix"], ["weight", "mix"], ["weight", "bias", "mix"]])
    def test_outputs_are_those_of_onnx_runtime_with_the_same_weights(self, backend: TensorRt, names: list[str]) -> None:
        backend.run({"x": X})
        changed = {name: RNG.normal(size=CONSTANTS[name].shape).astype(np.float32) for name in names}
        backend.set_weights(changed)
        same(backend.run({"x": X}), expected(changed))
        assert backend.refreshes == 1 and backend.refresh_s > 0
        # One refit after the other adds up, and gives again what was given before to weights that are fused.
        again = {"bias": np.ones(4, np.float32)}
        backend.set_weights(again)
        same(backend.run({"x": X}), expected({**changed, **again}))
        backend.set_weights(CONSTANTS)
        same(backend.run({"x": X}), expected())

    def test_the_callers_arrays_are_its_own(self, backend: TensorRt) -> None:
        given = np.asfortranarray(CONSTANTS["weight"] * 2)
        backend.set_weights({"weight": given})
        given[:] = np.nan
        backend.set_weights({"bias": CONSTANTS["bias"]})
        same(backend.run({"x": X}), expected({"weight": CONSTANTS["weight"] * 2}))

    def test_a_refused_name_changes_nothing(self, board: Board, backend: TensorRt, monkeypatch: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(board.trt.Refitter, "set_named_weights", lambda self, name, weights: False)
            with pytest.raises(BackendError, match=r"front.onnx on tensorrt: weight 'weight' is refused"):
                backend.set_weights({"weight": 2 * CONSTANTS["weight"]})
        same(backend.run({"x": X}), expected())

    def test_a_weight_that_nobody_has_is_not_asked_for_for_ever(
        self, board: Board, backend: TensorRt, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(board.trt.Refitter, "get_missing_weights", lambda self: ["scale of layer 3"])
        with pytest.raises(BackendError, match="weight 'scale of layer 3' is wanted, and cannot be given"):
            backend.set_weights({"weight": CONSTANTS["weight"]})

    def test_a_refit_that_fails_leaves_no_half_new_engine(self, board: Board, backend: TensorRt) -> None:
        board.trt.faults["refit"] = "Refit failed: out of memory"
        with pytest.raises(BackendError, match=r"TensorRT says: Refit failed.*close other programs"):
            backend.set_weights({"weight": CONSTANTS["weight"]})
        with pytest.raises(BackendError, match="no execution context: its last refit failed"):
            backend.run({"x": X})

    def test_a_kept_engine_is_refitted_too(self, board: Board, backend: TensorRt) -> None:
        other = opened()
        assert board.trt.count["build"] == 1
        other.set_weights({"mix": -CONSTANTS["mix"]})
        same(other.run({"x": X}), expected({"mix": -CONSTANTS["mix"]}))
        other.close()

    def test_names_that_the_engine_lacks(self, board: Board, monkeypatch: Any) -> None:
        monkeypatch.setattr(board.trt.Refitter, "get_all_weights", lambda self: ["weight", "bias"])
        with pytest.raises(BackendError, match=r"no weights \['mix'\] to refit: export with --device"):
            opened()

    @pytest.mark.parametrize("mix", ["MatMul", "twice"])
    def test_what_8_2_does_not_keep_by_name(self, make: Maker, mix: str) -> None:
        make("8.2")
        with pytest.raises(BackendError, match=r"weight 'mix' at .* cannot be refitted by name on this TensorRT"):
            TensorRt(model(mix), GRAPH)
        make("10.3")
        TensorRt(model(mix), GRAPH).close()


class TestBuild:
    def test_workspace_and_progress(self, board: Board, capsys: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(build, "PAUSE_S", 0.0)
        opened().close()
        assert board.trt.workspace == board.cuda.total // 2
        told = capsys.readouterr().err
        assert "front.onnx on tensorrt: building in float32, 512 MiB" in told and "built in" in told
        assert ("Tactic Selection: 2 of 3" in told) == (board.version != "8.2")
        assert ("Detected 1 inputs" in told) == (board.version == "8.2")

    def test_float16(self, board: Board, capsys: Any) -> None:
        backend = TensorRt(model(), GRAPH, 1, HALF)
        backend.set_weights({"book": BOOK})
        error = np.abs(backend.run({"x": X})["feature"] - expected()["feature"]).max()
        backend.close()
        if board.version == "11.4":
            assert "takes types from the graph: float32 instead of float16" in capsys.readouterr().err
            assert error < 1e-5
        else:
            assert 1e-5 < error < 5e-3 * np.abs(expected()["feature"]).max()

    def test_a_profile_of_another_precision(self, board: Board) -> None:
        with pytest.raises(BackendError, match="precision 'int8' of the profile: expected float32 or float16"):
            TensorRt(model(), GRAPH, 1, {"target": {"precision": "int8"}})

    def test_open_shapes(self, board: Board) -> None:
        wide = GRAPH._replace(inputs=(TensorSpec("x", "float32", (-1, 3, 5, 5)),))
        with pytest.raises(BackendError, match=r"\['x'\] have no fixed shape.*--static-batch"):
            TensorRt(model(batch="n"), wide)

    def test_bytes_that_are_no_model(self, board: Board) -> None:
        with pytest.raises(BackendError, match=r"front.onnx on tensorrt.*export the graph again"):
            TensorRt(b"no model", GRAPH)

    def test_specs_that_are_not_the_graphs(self, board: Board) -> None:
        for wrong in (
            GRAPH._replace(held=()),
            GRAPH._replace(outputs=(*GRAPH.outputs, TensorSpec("loss", "float32", ()))),
            GRAPH._replace(outputs=(GRAPH.outputs[0], TensorSpec("codes", "int64", (3,)))),
        ):
            with pytest.raises(BackendError, match=r"front.onnx on tensorrt: the engine has .* export it again"):
                TensorRt(model(), wrong)
        with pytest.raises(ShapeError, match="initialisers"):
            TensorRt(model(), GRAPH._replace(constants=(TensorSpec("mean", "float32", (4,)),)))

    def test_a_graph_that_the_parser_refuses(self, make: Maker) -> None:
        make("8.2")
        graph = helper.make_graph(
            [helper.make_node("HardSwish", ["x"], ["y"])],
            "front",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )
        data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)]).SerializeToString()
        spec = GraphSpec("front.onnx", (TensorSpec("x", "float32", (1,)),), (), (), (TensorSpec("y", "float32", (1,)),))
        with pytest.raises(BackendError, match=r"is refused.*No importer.*HardSwish.*export again with --device"):
            TensorRt(data, spec)

    @pytest.mark.parametrize(
        ("step", "message", "words"),
        [
            ("build", "Could not find any implementation for node Conv_0", "no kernel fits in the free memory"),
            ("build", "[virtualMemoryBuffer.cpp] OutOfMemory: out of memory", "close other programs"),
            ("context", "Allocation failed: insufficient memory", "close other programs"),
            ("load", "Serialization assertion failed", "the engine does not load.*of another TensorRT"),
        ],
    )
    def test_vendor_errors_are_quoted(self, board: Board, step: str, message: str, words: str) -> None:
        board.trt.faults[step] = message
        with pytest.raises(BackendError, match=f"front.onnx on tensorrt: .*{words}") as caught:
            opened()
        assert message in str(caught.value)

    def test_a_run_that_fails(self, board: Board, backend: TensorRt) -> None:
        board.trt.faults["run"] = "Cuda Runtime (unspecified launch failure)"
        with pytest.raises(BackendError, match=r"the run failed: TensorRT says: Cuda Runtime.*dmesg"):
            backend.run({"x": X})

    @pytest.mark.parametrize("code", [700, 2])
    @pytest.mark.parametrize(
        "call", ["cudaMalloc", "cudaStreamCreate", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaMemGetInfo"]
    )
    def test_cuda_errors_have_a_name_and_advice(self, make: Maker, call: str, code: int) -> None:
        board = make("10.3")
        board.cuda.failures[call] = code
        name = {700: "cudaErrorIllegalAddress", 2: "cudaErrorMemoryAllocation"}[code]
        with pytest.raises(BackendError, match=f"front.onnx on tensorrt: {call} gave {name} .*: .*"):
            backend = opened()
            try:
                backend.run({"x": X})
            finally:
                board.cuda.failures.clear()
                board.cuda._sticky = 0
                backend.close()
        if code == 700:  # it stays, so that nothing could be freed
            board.cuda.memory.clear()
            board.cuda.streams.clear()

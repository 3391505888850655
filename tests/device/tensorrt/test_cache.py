"""Kept TensorRT engines: hits, mismatches, damage; and machines that have no TensorRT."""

import re
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import BackendError
from edgekit.runtime.backends.registry import backend_class
from edgekit.runtime.backends.tensorrt import cudart
from edgekit.runtime.backends.tensorrt.backend import TensorRt
from tests.device.tensorrt.board import GRAPH, HALF, Board, Maker, X, expected, model, opened, same
from tests.device.tensorrt.cudart_emulator import Library


class TestCache:
    def test_the_second_start_builds_nothing(self, board: Board, capsys: Any) -> None:
        opened().close()
        capsys.readouterr()
        backend = opened()
        same(backend.run({"x": X}), expected())
        backend.close()
        assert board.trt.count["build"] == 1 and len(board.files()) == 1
        assert capsys.readouterr().err == ""

    def test_another_board_prints_both_sides_and_rebuilds(self, make: Maker, capsys: Any) -> None:
        make("8.2", runtime=10020, capability=(5, 3))
        opened().close()
        board = make("10.3")
        capsys.readouterr()
        opened().close()
        told = capsys.readouterr().err
        assert "CUDA: kept 10.2, here 12.6" in told and "compute capability: kept 5.3, here 8.7" in told
        assert "TensorRT: kept 8.2.1.8, here 10.3.0.30" in told and "built anew" in told
        assert board.trt.count["build"] == 1 and len(board.files()) == 1
        opened().close()
        assert board.trt.count["build"] == 1

    def test_precision_is_part_of_the_key(self, make: Maker, capsys: Any) -> None:
        board = make("10.3")
        opened().close()
        TensorRt(model(), GRAPH, 1, HALF).close()
        assert "precision: kept float32, here float16" in capsys.readouterr().err
        assert board.trt.count["build"] == 2

    @pytest.mark.parametrize("damage", ["cut", "flip", "empty", "garbage"])
    def test_a_damaged_file_is_never_loaded(self, board: Board, damage: str, capsys: Any) -> None:
        opened().close()
        (file,) = board.files()
        data = file.read_bytes()
        flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
        file.write_bytes({"cut": data[:-1], "flip": flipped, "empty": b"", "garbage": b"x" * 99}[damage])
        backend = opened()
        same(backend.run({"x": X}), expected())
        backend.close()
        assert "is damaged" in capsys.readouterr().err and board.trt.count["build"] == 2
        opened().close()
        assert board.trt.count["build"] == 2

    def test_an_engine_that_tensorrt_refuses_is_built_anew(self, board: Board, capsys: Any) -> None:
        opened().close()
        board.trt.faults["load"] = "Serialization assertion failed"
        opened().close()
        told = capsys.readouterr().err
        assert re.search("the engine does not load.*Serialization.*; built anew", told)
        assert board.trt.count["build"] == 2

    def test_a_disk_that_takes_nothing(self, board: Board, capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file" / "engines"))
        opened().close()
        assert "cannot be kept" in capsys.readouterr().err


def test_without_a_driver_nothing_of_tensorrt_is_touched(make: Maker) -> None:
    """The emulator, as the real library, crashes when it is asked anyway."""
    make("10.3", devices=0)
    with pytest.raises(BackendError, match=r"'tensorrt' cannot run here: .*cudaErrorInsufficientDriver \(35.*JetPack"):
        backend_class("tensorrt")
    with pytest.raises(BackendError, match="cudaErrorInsufficientDriver"):
        opened()


def test_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudart, "candidates", lambda: ["libcudart.so.0"])
    with pytest.raises(BackendError, match=r"looked for libcudart.so.0\): .*LD_LIBRARY_PATH"):
        cudart.load()


def test_without_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "python3-libnvinfer" in (TensorRt.missing() or "")


def test_figures_of_the_cuda_runtime() -> None:
    cuda = cudart.Cudart(Library(runtime=10020, capability=(5, 3), total=4 << 30))
    assert (cuda.device_count(), cuda.version(), cuda.compute_capability()) == (1, "10.2", "5.3")
    assert cuda.memory() == (4 << 30, 4 << 30)

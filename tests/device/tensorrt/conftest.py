"""Emulated boards for the tests of the TensorRT backend."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.runtime.backends.tensorrt import cudart
from tests.device.tensorrt.board import Board, Maker
from tests.device.tensorrt.cudart_emulator import Library
from tests.device.tensorrt.emulator import module


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Maker]:
    """Makes this process look like a board; in the end nothing may be left on its device, and nothing misused."""
    made: list[Library] = []

    def board(version: str, **hardware: Any) -> Board:
        library = Library(**hardware)
        made.append(library)
        trt = module(version, library)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(cudart, "load", lambda: cudart.Cudart(library))
        monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "engines"))
        return Board(trt, library, version, tmp_path / "engines")

    yield board
    for library in made:
        assert not library.crashed
        assert not library.memory and not library.streams


@pytest.fixture(params=["8.2", "10.3", "11.4"])
def board(request: pytest.FixtureRequest, make: Maker) -> Board:
    return make(request.param)

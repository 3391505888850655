"""The folder of --out: what is refused before a run, and what is there whenever it ends."""

import os
import shutil
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from edgekit import tensorfile
from edgekit.codecs.base import Arrays
from edgekit.errors import UsageError
from edgekit.kept import Kept, check_room, halves, size_of

Usage = namedtuple("Usage", "total used free")


def arrays(value: float) -> Arrays:
    return {"weight": np.array([value], np.float32)}


def found(folder: Path) -> dict[str, float]:
    return {
        str(path.relative_to(folder)): float(tensorfile.loads(path.read_bytes())["weight"][0])
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_last_ones_and_the_best(tmp_path: Path) -> None:
    out = Kept(str(tmp_path / "a" / "b"))
    out.write({"back": arrays(1.0), "front": arrays(2.0)}, best=True)
    out.write({"back": arrays(3.0), "front": arrays(4.0)}, best=False)
    assert found(tmp_path / "a" / "b") == {
        "back.safetensors": 3.0, "front.safetensors": 4.0, "best/back.safetensors": 1.0, "best/front.safetensors": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["back.safetensors", "best/front.safetensors", "tables.safetensors"])
def test_an_earlier_run_is_not_overwritten_unasked(tmp_path: Path, name: str) -> None:
    Kept(str(tmp_path)).write({"back": arrays(1.0)}, best=False)
    (tmp_path / "back.safetensors").rename(tmp_path / name)
    before = found(tmp_path)
    with pytest.raises(UsageError, match=rf"--out .* earlier run \({name}\): choose another folder, or --overwrite"):
        Kept(str(tmp_path))
    assert found(tmp_path) == before


def test_an_earlier_run_goes_when_this_one_has_something(tmp_path: Path) -> None:
    Kept(str(tmp_path)).write({"back": arrays(1.0), "front": arrays(1.0)}, best=True)
    (tmp_path / "mine.txt").write_text("mine")
    again = Kept(str(tmp_path), overwrite=True)
    assert len(halves(str(tmp_path))) == 4
    again.write({"back": arrays(2.0)}, best=False)
    assert halves(str(tmp_path)) == ["back.safetensors"] and (tmp_path / "mine.txt").exists()
    again.write({"back": arrays(3.0)}, best=True)
    again.write({"back": arrays(4.0)}, best=False)
    assert halves(str(tmp_path)) == ["back.safetensors", "best/back.safetensors"]


def test_other_files_are_no_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_bytes(b"")
    Kept(str(tmp_path))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(UsageError, match="cannot be a folder"):
        Kept(str(tmp_path / "file"))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UsageError, match="cannot be written to: Read-only file system"):
        check_room(str(tmp_path), 0)


def test_room_for_a_few_times_the_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kept(str(tmp_path)).write({"back": arrays(1.0)}, best=False)
    n_bytes = size_of(str(tmp_path))
    assert n_bytes == (tmp_path / "back.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 4 * n_bytes))
    check_room(str(tmp_path), n_bytes)
    with pytest.raises(UsageError, match="MB are free there, expected 4 times the"):
        check_room(str(tmp_path), n_bytes + 1)


def test_all_is_written_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Kept(str(tmp_path))
    out.write({"back": arrays(1.0), "front": arrays(1.0)}, best=True)
    before = found(tmp_path)
    really, n = os.fsync, iter(range(10))

    def fills(number: int) -> None:
        if next(n) == 2:
            raise OSError(28, os.strerror(28))
        really(number)

    monkeypatch.setattr(os, "fsync", fills)
    with pytest.raises(UsageError, match=r"best/back.safetensors cannot be written: No space left .* is still there"):
        out.write({"back": arrays(2.0), "front": arrays(2.0)}, best=True)
    assert found(tmp_path) == before
    out.write({"back": arrays(3.0), "front": arrays(3.0)}, best=True)
    assert set(found(tmp_path).values()) == {3.0}


def test_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = Kept(str(tmp_path))
    assert not out.due
    now[0] += 60.0
    assert out.due
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (really(number), now.append(now.pop() + 5.0)))
    out.write({"back": arrays(1.0)}, best=False)
    # A slow disk is written to less often: 20 times as long as it takes.
    now[0] += 99.0
    assert not out.due
    now[0] += 1.0
    assert out.due

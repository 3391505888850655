"""Kept engines: the file's bytes, and that nothing but a whole file for the same key is ever given back."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PayloadError
from edgekit.runtime import cache

KEY = {"model": "ab" * 32, "TensorRT": "8.2.1", "precision": "float16"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "deep" / "engines"))
    return tmp_path / "deep" / "engines"


@given(st.dictionaries(st.text(), st.text()), st.binary())
def test_what_is_packed_is_unpacked(key: dict[str, str], engine: bytes) -> None:
    assert cache.unpack(cache.pack(key, engine)) == (key, engine)


@given(st.binary() | st.binary().map(lambda tail: b"edgekit\0" + tail))
def test_any_bytes_give_a_payload_error(data: bytes) -> None:
    with pytest.raises(PayloadError):
        cache.unpack(data)


@given(st.data())
def test_no_change_of_a_byte_gets_another_engine_through(data: st.DataObject) -> None:
    whole = bytearray(cache.pack(KEY, b"engine" * 10))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        _, engine = cache.unpack(bytes(whole))
    except PayloadError:
        return
    assert engine == b"engine" * 10


def test_a_hit_says_nothing_and_a_miss_without_a_file_neither() -> None:
    said: list[str] = []
    assert cache.load("one", KEY, said.append) is None
    cache.store("one", KEY, b"engine", said.append)
    assert cache.load("one", KEY, said.append) == b"engine"
    assert said == []


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({**KEY, "TensorRT": "10.3.0"}, "TensorRT: kept 8.2.1, here 10.3.0"),
        ({**KEY, "CUDA": "12.6"}, "CUDA: kept none, here 12.6"),
        ({"model": KEY["model"], "TensorRT": "8.2.1"}, "precision: kept float16, here none"),
    ],
    ids=str,
)
def test_both_sides_of_a_mismatch_are_told(here: dict[str, str], words: str) -> None:
    said: list[str] = []
    cache.store("one", KEY, b"engine", said.append)
    assert cache.load("one", here, said.append) is None
    assert len(said) == 1 and words in said[0] and said[0].endswith("built anew")


def test_a_write_that_breaks_off_leaves_the_old_engine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    cache.store("one", KEY, b"old", said.append)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache.store("one", KEY, b"new", said.append)
    assert "cannot be kept (No space left on device)" in said[0]
    assert cache.load("one", KEY, said.append) == b"old"
    assert [path.name for path in here.iterdir()] == ["one.engine"]


def test_a_file_that_cannot_be_read(here: Path) -> None:
    said: list[str] = []
    (here / "one.engine").mkdir(parents=True)
    assert cache.load("one", KEY, said.append) is None
    assert "cannot be read (Is a directory)" in said[0]
    assert stat.S_ISDIR((here / "one.engine").stat().st_mode)


def test_the_users_own_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache.path("one") == os.path.join("here", "edgekit", "engines", "one.engine")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == os.path.join(os.path.expanduser("~"), ".cache", "edgekit", "engines")

"""Saves: a new one stands beside the one before until it is confirmed."""

from pathlib import Path

import pytest

from edgekit import statefile
from edgekit.errors import UsageError
from edgekit.saves import FOLDER, Saves, found, paths


@pytest.fixture(params=["folder", "memory"])
def saves(request: pytest.FixtureRequest, tmp_path: Path) -> Saves:
    return Saves(str(tmp_path) if request.param == "folder" else None)


def test_the_one_before_stays_until_the_new_one_is_confirmed(saves: Saves) -> None:
    for label in (1, 2):
        saves.write(label, {"label": label})
    assert saves.labels == [1, 2] and saves.read(1) == {"label": 1}
    saves.confirm(2)
    assert saves.labels == [2] and saves.read(2) == {"label": 2}
    with pytest.raises(UsageError, match="there is no save 1, only"):
        saves.read(1)
    saves.clear()
    assert saves.labels == []


def test_another_process_finds_them(tmp_path: Path) -> None:
    Saves(str(tmp_path)).write(7, {"a": 1})
    (tmp_path / FOLDER / "000009.state.new").write_bytes(b"half")
    assert found(str(tmp_path)) == [7] and paths(str(tmp_path)) == [f"{FOLDER}/000007.state"]
    assert Saves(str(tmp_path)).read(7) == {"a": 1}
    assert found(str(tmp_path / "nothing")) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    saves = Saves(str(tmp_path))
    saves.write(1, {})
    (tmp_path / FOLDER / "000002.state.new").symlink_to("/dev/full")
    with pytest.raises(UsageError, match="No space left on device; the save before it is still there"):
        saves.write(2, {})
    assert saves.labels == [1] == found(str(tmp_path))


def test_a_damaged_one_is_told(tmp_path: Path) -> None:
    saves = Saves(str(tmp_path))
    saves.write(1, {"a": 1})
    path = tmp_path / FOLDER / "000001.state"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UsageError, match="cannot be gone on from"):
        saves.read(1)


@pytest.mark.parametrize(
    "state", [{}, [1], {"format": 1, "of": "server", "state": {}}, {"format": 2, "of": "device", "state": {}}]
)
def test_one_of_another_kind_is_told(tmp_path: Path, state: object) -> None:
    saves = Saves(str(tmp_path))
    saves.write(1, {})
    (tmp_path / FOLDER / "000001.state").write_bytes(statefile.dumps(state))
    with pytest.raises(UsageError, match="no save of a device by this version"):
        saves.read(1)


def test_what_a_killed_process_was_writing_goes_and_nobody_else_reads_a_save(tmp_path: Path) -> None:
    Saves(str(tmp_path)).write(1, {})
    (tmp_path / FOLDER / "000002.state.new").write_bytes(b"half")
    Saves(str(tmp_path))
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["000001.state"]
    assert (tmp_path / FOLDER / "000001.state").stat().st_mode & 0o077 == 0

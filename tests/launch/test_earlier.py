"""What a folder holds of an earlier training, and that it stays unless it is to be lost."""

import json
from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.export.settings import NamedData, NamedNetwork
from edgekit.launch.earlier import check_out, earlier, make_way
from edgekit.launch.settings import Training
from edgekit.launch.train import train


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    for name in ("server/back", "server/best/front", "device-12/front"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "record.jsonl").write_text(json.dumps({"event": "epoch", "epoch": 1}) + "\n")
    return tmp_path


HELD = [
    "device-12/front.safetensors", "server/back.safetensors", "server/best/front.safetensors", "record.jsonl",
]  # fmt: skip


def test_halves_and_a_record_that_came_to_something(trained: Path) -> None:
    assert earlier(str(trained)) == HELD and earlier(str(trained / "nowhere")) == []
    with pytest.raises(UsageError, match=r"--out .*device-12/front.safetensors, .*--overwrite to lose it"):
        check_out(str(trained), overwrite=False)
    check_out(str(trained), overwrite=True)
    assert earlier(str(trained)) == HELD
    make_way(str(trained), 0)
    assert earlier(str(trained)) == []
    check_out(str(trained), overwrite=False)


def test_a_run_that_came_to_nothing_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text(json.dumps({"event": "start"}) + "\n")
    # Folders of other commands, as the README has them.
    for name in ("bundle/front", "raw/server/back"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    check_out(str(tmp_path), overwrite=False)


def test_more_files_than_are_named(tmp_path: Path) -> None:
    for n in range(9):
        (tmp_path / f"device-{n}").mkdir()
        (tmp_path / f"device-{n}" / "front.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"device-4/front.safetensors, \.\.\.\)"):
        check_out(str(tmp_path), overwrite=False)


def test_train_refuses_before_it_exports(trained: Path) -> None:
    with pytest.raises(UsageError, match="an earlier training"):
        train(NamedNetwork("vgg11"), data=NamedData(limit=32), training=Training(1), out=str(trained))
    assert not (trained / "bundle").exists()

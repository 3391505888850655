"""Files on the board: what is there, in part, damaged; run by this machine's Python as a board's would."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgekit.deploy
from edgekit.deploy.answer import parse
from edgekit.deploy.deployment import File, one_word, size
from edgekit.deploy.files import _there
from edgekit.errors import DeployError, UsageError

SCRIPT = (Path(edgekit.deploy.__file__).parent / "on_board" / "files.py").read_text()
DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()


def ask(data: bytes = b"", **argument: Any) -> Any:
    command = [sys.executable, "-c", SCRIPT, json.dumps(argument)]
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=300)
    return parse(done.stdout, "board")


def take(path: Path, data: bytes, offset: int = 0) -> Any:
    return ask(data, do="take", path=str(path), offset=offset, bytes=len(DATA), sha256=SHA256)


def look(path: Path) -> Any:
    return ask(do="look", files=[[str(path), len(DATA), SHA256]]).get("files", list)[0]


def test_a_file_arrives_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "ä'$(x)\n.bin"
    assert look(path) == ["none"]
    assert "40000 B arrived of 102400" in take(path, DATA[:40_000]).get("error", str)
    assert look(path) == ["part", 40_000, hashlib.sha256(DATA[:40_000]).hexdigest()]
    assert take(path, DATA[40_000:], 40_000).maybe("error", str) is None
    assert look(path) == ["whole"] and path.read_bytes() == DATA
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_arrived_damaged_is_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert "another sha256" in take(path, DATA[:-1] + b"x").get("error", str)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(DATA[:-1] + b"x")
    assert look(path) == ["none"]


def test_a_part_counts_only_where_it_begins_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    file = File(str(path), "there", len(DATA), SHA256)
    assert _there(file, ["part", 1000, hashlib.sha256(DATA[:1000]).hexdigest()]) == 1000
    assert _there(file, ["part", 1000, hashlib.sha256(DATA[1:1001]).hexdigest()]) == 0
    for nonsense in (["none"], ["part"], ["part", "x", "y"], None, [], ["part", -1, SHA256]):
        assert _there(file, nonsense) == 0


def test_errors_of_the_board_have_their_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = ask(do="write", texts=[[str(tmp_path / "file" / "x"), "text"]])
    assert answer.maybe("errno", int) in (17, 20)
    with pytest.raises(DeployError, match=str(tmp_path / "file")):
        answer.require()
    texts = [[str(tmp_path / "ok"), "a\nb\n"]]
    ask(do="write", texts=texts).require()
    assert (tmp_path / "ok").stat().st_mode & 0o777 == 0o600  # what --env sets is nobody else's
    assert ask(do="read", paths=[texts[0][0], "nowhere"]).get("texts", list) == ["a\nb\n", None]


def test_sizes_and_names() -> None:
    assert [size(n) for n in (0, 99, 100, 301_572, 64.6e9)] == ["0 B", "99 B", "0.1 kB", "0.3 MB", "64.6 GB"]
    assert one_word("jetson-nano_1.2", "--name") == "jetson-nano_1.2"
    for text in ("", "a/b", "a b", "ä", "../x", ".."):
        with pytest.raises(UsageError, match=r"--name .*: expected letters"):
            one_word(text, "--name")

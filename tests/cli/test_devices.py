"""`edgekit devices`: the list, one board, JSON, and that the page of documentation shows the same table."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import edgekit.device_profiles.registry as registry
from edgekit.cli.devices import devices
from edgekit.device_profiles.registry import PROFILES, profile, profiles
from edgekit.errors import UnknownName
from edgekit.export.targets.check import BOARD_RULES

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(devices, arguments)


def output(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_is_aligned() -> None:
    header, *rows, alias = output().splitlines()
    assert [row.split()[0] for row in rows] == profiles()
    assert alias == "jetson is jetson-orin-nano"
    starts = [header.index(title) for title in ("runtime", "precision", "opset", "norm")]
    assert all(row[start - 1] == " " and row[start] != " " for row in rows for start in starts)
    assert {len(row) for row in rows} == {len(header)}
    assert re.match(r"jetson-nano +tensorrt 8\.2\.1 +float16 +11 +frozen +4 +472 +26$", rows[2])


def test_json() -> None:
    every = json.loads(output("--json"))
    assert list(every) == profiles()
    assert every["jetson-tx2"] == profile("jetson-tx2").to_json() == json.loads(output("jetson-tx2", "--json"))
    assert json.loads(output("jetson", "--json"))["name"] == "jetson-orin-nano"


@pytest.mark.parametrize("name", PROFILES)
def test_one_board_in_words(name: str) -> None:
    board = profile(name)
    lines = output(name).splitlines()
    assert lines[0] == f"{name}: {board.title}"
    assert all(len(line) <= 120 for line in lines)
    shown = " ".join(" ".join(lines).split()).replace("- ", "-")
    for rule in board.target.rules:
        assert f"{rule}: {BOARD_RULES[rule].what}".replace("- ", "-") in shown
    for source in board.sources:
        assert source.replace("- ", "-") in shown
    assert f"opset {board.target.opset}, IR version {board.target.ir_version}" in shown


def test_a_users_board(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (Path(registry.__file__).parent / PROFILES["cpu"]).read_text(encoding="utf-8")
    path.write_text(text.replace('"arg-reduce"', '"arg-reduced"'), encoding="utf-8")
    assert "unknown board rule 'arg-reduced': did you mean arg-reduce" in str(run(str(path)).exception)


def test_unknown_board() -> None:
    assert isinstance(run("jetson-nanno").exception, UnknownName)


def test_page_shows_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- edgekit devices --markdown -->\n\n(.*)\n<!-- end -->", page, re.DOTALL)
    assert table == output("--markdown"), "write the output of `edgekit devices --markdown` into docs/devices.md"

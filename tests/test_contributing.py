"""CONTRIBUTING.md names files, tables, tests and commands that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
#: Texts in backticks, as in `docs/export.md`, and the code blocks.
QUOTED = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE))
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
TOPS = {path.name for path in ROOT.iterdir()}


def paths(text: str) -> list[str]:
    """The words of `text` that are paths from the root."""
    return [word for word in text.split() if word.split("/")[0] in TOPS or re.fullmatch(r"\S+\.(md|py|toml)", word)]


def missing(path: str) -> bool:
    """Whether `path`, or the test in it that is named after ``::``, is not there. NAME is the reader's own."""
    file, _, test = path.partition("::")
    found = list(ROOT.glob(file.replace("NAME", "*")))
    return not found or bool(test and f"def {test}(" not in found[0].read_text(encoding="utf-8"))


def test_every_path_exists() -> None:
    named = [path for text in [*QUOTED, *BLOCKS.splitlines()] for path in paths(text.split("#")[0])]
    named += re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert len(named) > 40
    assert not [path for path in named if not path.startswith(".venv") and missing(path)]


def test_every_table_is_in_its_file() -> None:
    tables = re.findall(r"`([A-Z]+)` in `([^`]+)`", TEXT)
    assert len(tables) > 10
    for table, path in tables:
        assert re.search(rf"^{table}\b.*=", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (table, path)


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^(?:`?)make (\w+)", TEXT, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", TEXT))
    assert {"venv", "fast", "test", "format", "check"} <= targets
    assert not {target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)}


@pytest.mark.parametrize(
    "path", ["docs/no.md", "edgekit/no/NAME.py", "tests/line/test_frame.py::test_no", "tests/no.py::test_no"]
)
def test_what_is_missing_is_seen(path: str) -> None:
    assert paths(f"see {path}") == [path] and missing(path)

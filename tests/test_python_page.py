"""Every snippet of docs/python.md runs, in their order, as one program."""

import re
from pathlib import Path
from typing import Any

import pytest

import edgekit

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"


def snippets() -> list[tuple[int, str]]:
    """The line that each snippet begins at, and its text."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


def test_the_page_names_all_that_is_public() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in edgekit.__all__ if name != "__version__" and f"`edgekit.{name}`" not in text]
    assert not missing


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    # For the processes that `train` starts, where edgekit is not installed.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, Any] = {"__name__": "__main__"}
    assert len(snippets()) == 4
    for line, source in snippets():
        # Empty lines before it, so that an error names the line of the page.
        exec(compile("\n" * line + source, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "device-0 epoch 1 accuracy" in printed and "device-0 epoch 2 accuracy" in printed
    summary, done = names["summary"], names["done"]
    assert summary["event"] == "summary" and summary["images"] == 128 and summary["lr"] == 0.02
    assert (tmp_path / "run" / "record.jsonl").is_file()
    assert names["bundle"].codec.coding == "context" and isinstance(names["service"], edgekit.Service)
    # Two epochs of 1,438 images, in batches of about 32.
    assert done["images"] == 2 * 1438 and done["accuracy"] > 80
    assert f"{done['bytes_up']} B up" in printed

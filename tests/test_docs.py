"""The documentation names what the code has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.export.gradient import RULES as GRADIENTS
from edgekit.export.targets.check import ALWAYS, RULES

DOCS = Path(__file__).parents[1] / "docs"


def test_export_page_names_every_operator_and_every_rule() -> None:
    text = (DOCS / "export.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[\w-]+", text))
    # In training graphs of convolutions and norms; the page speaks of the layers.
    missing = set(GRADIENTS) - words
    assert not missing
    assert not (set(RULES) | set(ALWAYS)) - words


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


@pytest.mark.parametrize(
    ("script", "record"),
    [("accuracy.py", "accuracy.json"), ("calibration.py", "calibration-vgg11_thin.json")],
)
def test_tables_are_those_of_the_records(script: str, record: str) -> None:
    bench = DOCS.parent / "bench"
    command = [sys.executable, str(bench / script), "--show", str(bench / "results" / record)]
    table = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert table.strip() in (DOCS / "compression.md").read_text(encoding="utf-8")

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
    ("page", "command"),
    [
        ("docs/compression.md", "bench/accuracy.py --show bench/results/accuracy.json"),
        (
            "docs/compression.md",
            "bench/calibration.py --show bench/results/calibration-vgg11_thin.json "
            "--accuracy bench/results/accuracy.json",
        ),
        ("docs/compression.md", "bench/coder.py --show bench/results/coder.json"),
        ("docs/measure.md", "bench/link.py --show bench/results/link.json"),
        (
            "README.md",
            "bench/accuracy.py --show bench/results/accuracy.json --brief "
            "--only (blocks.4.16|features.10.64).(FP32|UQ-4|.*context.dct.*)$",
        ),
        (
            "docs/results.md",
            "-m edgekit report bench/results/thin-mobilenet_v1.json bench/results/measure-mobilenet_v1.json "
            "bench/results/measure-vgg11.json bench/results/in-flight-mobilenet_v1.json "
            "bench/results/thin-vgg11_thin.json --format md",
        ),
    ],
)
def test_tables_are_those_of_the_records(page: str, command: str) -> None:
    root = DOCS.parent
    run = [sys.executable, *command.split()]
    table = subprocess.run(run, cwd=root, capture_output=True, text=True, timeout=60, check=True).stdout
    assert table.strip() in (root / page).read_text(encoding="utf-8")

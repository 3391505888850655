"""The snippet of docs/federated.md that makes a run runs, and what it keeps are weights of the network."""

import re
from pathlib import Path

import pytest

from edgekit.export.models.registry import build

PAGE = Path(__file__).parents[2] / "docs" / "federated.md"


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (snippet,) = (each for each in found if "edgekit.federate.run" in each)
    exec(compile(snippet, str(PAGE), "exec"), {"__name__": "__main__"})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]
    build("vgg11_thin", (1, 16, 16), 10, 1, str(tmp_path / "runs" / "federated" / "network.safetensors"))

"""`edgekit serve --resume`: the options of the run go on with it, and others are refused."""

from pathlib import Path

import pytest

from edgekit.cli import going_on
from edgekit.cli.serve import serve
from edgekit.errors import UsageError
from edgekit.saves import Saves


def options_of(*words: str) -> dict[str, object]:
    with serve.make_context("serve", list(words)) as context:
        return going_on.options_of(context.params)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """That of a run of which nothing is known but how it was called."""
    words = ["bundle", "--devices", "3", "--seed", "5", "--listen", "127.0.0.1:4000", "--out", str(tmp_path)]
    with serve.make_context("serve", words) as context:
        Saves(str(tmp_path), "server").write(0, {"label": 0, "settings": going_on.settings(context.params)})
    return str(tmp_path)


def test_the_options_are_those_of_the_run(folder: str) -> None:
    got = options_of("--resume", folder, "--json", "--listen", "127.0.0.1:5000", "--devices", "3")
    assert (got["devices"], got["seed"], got["out"], got["as_json"]) == (3, 5, folder, True)
    assert got["listen"] == "127.0.0.1:5000" and str(got["bundle"]).endswith("/bundle")
    assert options_of("--resume", folder)["listen"] == "127.0.0.1:4000"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seed", "6"], "--seed 6: the run in .* had 5"),
        (["other"], "BUNDLE .*other: the run in .* had .*bundle"),
        (["--out", "elsewhere"], "leave --out and --overwrite out"),
        (["--overwrite"], "leave --out and --overwrite out"),
    ],
)
def test_others_are_refused(folder: str, words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        options_of("--resume", folder, *words)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run to go on with"):
        options_of("--resume", str(tmp_path))

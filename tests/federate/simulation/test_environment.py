"""Where Flower's environment is, and what its processes find."""

import os
from pathlib import Path

import pytest

import edgekit
from edgekit.errors import UsageError
from edgekit.federate.simulation import environment


def make(folder: Path, *names: str) -> None:
    (folder / "bin").mkdir(parents=True)
    for name in names:
        (folder / "bin" / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)


def test_an_environment_that_has_flowers_programs_is_taken(tmp_path: Path) -> None:
    make(tmp_path / "flower", *environment.PROGRAMS)
    assert environment.find(str(tmp_path / "flower")) == tmp_path / "flower/bin"


@pytest.mark.parametrize("names", [(), ("flwr",)])
def test_one_that_lacks_them_is_an_error_that_says_what_makes_it(tmp_path: Path, names: tuple[str, ...]) -> None:
    make(tmp_path / "flower", *names)
    with pytest.raises(UsageError, match=r"`make flower` in .* makes .venv-flower; --flower DIR"):
        environment.find(str(tmp_path / "flower"))


def test_outside_a_checkout_pip_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgekit, "__file__", str(tmp_path / "edgekit/__init__.py"))
    with pytest.raises(UsageError, match=r"pip install 'edgekit\[flower\]'"):
        environment.find(None)


def test_flower_finds_its_programs_and_this_edgekit_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    found = environment.variables(tmp_path / "bin", tmp_path / "home")
    assert found["PATH"] == f"{tmp_path / 'bin'}{os.pathsep}/usr/bin"
    paths = found["PYTHONPATH"].split(os.pathsep)
    assert str(Path(edgekit.__file__).parents[1]) in paths and os.getcwd() in paths and "/mine" in paths
    assert found["FLWR_HOME"] == str(tmp_path / "home")
    assert found["FLWR_TELEMETRY_ENABLED"] == "0" and found["FLWR_DISABLE_UPDATE_CHECK"] == "1"

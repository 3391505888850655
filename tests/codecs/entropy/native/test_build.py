"""The compiled libraries are what their sources give."""

import importlib.util
import os
import re
import shutil
from pathlib import Path

import pytest

from edgekit.codecs.entropy.native import build, library


def test_the_header_and_the_loader_have_one_interface():
    (number,) = re.findall(r"^#define EDGEKIT_ABI (\d+)$", Path(build.HERE, "coder.h").read_text(), re.MULTILINE)
    assert int(number) == library.ABI


def test_committed_libraries_are_what_the_sources_give(tmp_path, monkeypatch):
    """Compiled in another folder, with nothing kept of what was compiled before."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("the package ziglang is not installed: nothing to compile with")
    for name in os.listdir(build.HERE):
        if name.endswith((".c", ".h")):
            shutil.copy(os.path.join(build.HERE, name), tmp_path)
    monkeypatch.setattr(build, "HERE", str(tmp_path))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "cache"))
    build.build(str(tmp_path))
    for machine in library.MACHINES:
        name = library.file_name(machine)
        committed = Path(library.__file__).with_name(name).read_bytes()
        assert (tmp_path / name).read_bytes() == committed, f"{name} is of other sources: make native"

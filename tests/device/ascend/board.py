"""An emulated Ascend board for tests: module acl, atc on PATH, and a CANN that has a version; NOT Huawei's."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.runtime.backends.ascend import process
from tests.device.ascend.emulator import Emulator

ROOT = Path(__file__).parents[3]


def install_atc(folder: Path, version: str = "7.0.RC1") -> Path:
    """A CANN in `folder` whose bin/atc is the emulator; its home."""
    (folder / "bin").mkdir(parents=True)
    (folder / "aarch64-linux").mkdir()
    (folder / "aarch64-linux" / "ascend_toolkit_install.info").write_text(f"package_name=toolkit\nversion={version}\n")
    atc = folder / "bin" / "atc"
    atc.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.device.ascend.atc_emulator import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    atc.chmod(0o755)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process on an emulated board whose files lie in `folder`."""
    home = install_atc(folder / "cann")
    return {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "ASCEND_TOOLKIT_HOME": str(home),
        "EDGEKIT_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder),
    }


@contextmanager
def board(emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """This process on an emulated board. At the end nothing may be left, and pyACL be finalized if it was started."""
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(sys.modules, "acl", emulator.module())
    monkeypatch.setattr(process, "_process", None)
    yield emulator
    process._process = None
    gc.collect()
    emulator.fail_at = -1
    assert emulator.left() == {}
    assert emulator.state in ("new", "finalized")

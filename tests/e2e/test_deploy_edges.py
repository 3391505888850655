"""Boards of every kind: login shells that are not POSIX's or talk a lot, disks that are read-only or noexec."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from tests.e2e.conftest import Board, require_sshd
from tests.e2e.test_deploy import steps

QUICK = ("--no-check", "--seconds", "0.2", "--json")
DEPLOY_ERROR = 13
#: What a login prints before the command runs: lines as answers and events have them, and some that do not end.
TALKING = """#!/bin/sh
printf 'Welcome\\nedgekit:{"error": "no answer"}\\n{"event": "encoded"}\\n$ '
printf 'motd\\n%% ' >&2
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


@pytest.fixture(scope="module", params=["bsd-csh", "tcsh", "fish", "zsh", "talking"])
def odd_board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board whose login shell is that: sshd has it run each command, as it would a user's own shell."""
    require_sshd()
    folder = tmp_path_factory.mktemp(request.param)
    shell = folder / "talking" if request.param == "talking" else shutil.which(request.param)
    if shell is None:
        pytest.skip(f"no {request.param} here: apt-get install csh tcsh fish zsh")
    (folder / "talking").write_text(TALKING)
    (folder / "talking").chmod(0o755)
    made = Board(folder / "b", variables=f'\nForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"')
    yield made
    made.close()


def test_any_login_shell_serves(odd_board: Board, bundle: str) -> None:
    words = (bundle, "--target", "a b'c!", *QUICK)
    code, out, err = odd_board.deploy(*words)
    assert code == 0, err + out
    done = steps(out)
    assert done["files"]["state"] == done["check"]["state"] == "done" and "images/s encoded" in done["check"]["text"]
    assert (odd_board.home / "a b'c!" / "bundles").is_dir()
    code, out, err = odd_board.deploy(*words)
    assert code == 0 and {event["state"] for event in steps(out).values()} <= {"nothing to do", "skipped"}, err + out
    code, out, err = odd_board.deploy("--target", "a b'c!", "--status", "--json")
    assert code == 0 and json.loads(out)["state"] == "not started yet", err + out


def test_a_long_folder_for_temporary_files(
    board: Board, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    code, out, err = board.deploy(bundle, "--target", "short", *QUICK)
    assert code == 0, err + out


@pytest.fixture
def mounted(board: Board, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system on the board, mounted with the options that the test names."""
    path = board.home / "mounted"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=64m,{request.param}", "tmpfs", str(path)]
    if os.getuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        path.rmdir()
        pytest.skip("no file system can be mounted here: it takes root")
    yield path
    subprocess.run(["umount", str(path)], check=True)
    path.rmdir()


@pytest.mark.parametrize("mounted", ["ro"], indirect=True)
def test_a_read_only_disk_is_named(board: Board, bundle: str, mounted: Path) -> None:
    code, out, err = board.deploy(bundle, "--target", "mounted/edgekit", *QUICK)
    assert code == DEPLOY_ERROR, err + out
    assert f"nothing can be written to {mounted}/edgekit: the file system of {mounted} is read-only" in err
    assert "name a folder on another disk with --target DIR" in err


@pytest.mark.parametrize("mounted", ["noexec"], indirect=True)
def test_from_a_disk_without_exec_all_runs_but_libraries(board: Board, small_bundle: Bundle, mounted: Path) -> None:
    words = (small_bundle.path, "--target", "mounted", *QUICK)
    script = board.home / "bare-python"
    script.write_text(f'#!/bin/sh\nexec {getattr(sys, "_base_executable", sys.executable)} -S "$@"\n')
    script.chmod(0o755)
    code, out, err = board.deploy(*words, python=str(script))
    assert code == DEPLOY_ERROR and f"loaded from {mounted}, whose file system is mounted noexec" in err, err + out
    assert "numpy" in err and "--target DIR" in err and "--python PATH" in err
    assert not (mounted / "environment").exists()
    code, out, err = board.deploy(*words)
    assert code == 0 and "images/s encoded" in steps(out)["check"]["text"], err + out

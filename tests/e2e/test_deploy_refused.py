"""What `edgekit deploy` says where it cannot go on: each cause by its message and exit code 13, over a real sshd."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle, write_bundle
from edgekit.device_profiles.registry import profile
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import parse_link

DEPLOY_ERROR = 13

#: A stand-in for an old Python, where there is none: this one, which says that it is 3.5.2.
OLD_PYTHON = """#!/bin/sh
shift
exec {python} -c 'import sys; sys.version_info = (3, 5, 2); exec(sys.argv.pop(1))' "$@"
"""


def bundle_for(device: str, like: Bundle, path: Path) -> str:
    """The same bundle, described as another board's."""
    manifest = {key: value for key, value in like.manifest.items() if key not in ("format", "files")}
    files = {name: like.read(name) for name in like.manifest["files"]}
    return write_bundle(str(path), dict(manifest, device=profile(device).to_json()), files).path


def test_host_keys_and_logins(board: Any, bundle: str, tmp_path: Path) -> None:
    for name in ("other", "stranger"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(board.folder / name)]
        subprocess.run(made, check=True, timeout=300)
    other = (board.folder / "other.pub").read_text()
    wrong = tmp_path / "wrong"
    wrong.write_text(f"[127.0.0.1]:{board.port} {' '.join(other.split()[:2])}\n")
    cases = {
        "its host key is not the one that this machine knows": board.ssh(known=wrong),
        "its host key is not known to this machine": board.ssh(known=tmp_path / "none"),
        "it accepts no key or password of yours": board.ssh(key="stranger"),
        "nothing answers at that port": board.ssh(port=1),
    }
    said = {}
    for message, ssh in cases.items():
        code, _, err = board.deploy(bundle, ssh=ssh)
        assert (code, message in err, "ssh said:" in err) == (DEPLOY_ERROR, True, True), (message, code, err)
        said[message] = err
    assert f"Offending ED25519 key in {wrong}:1" in said["its host key is not the one that this machine knows"]


@pytest.fixture
def disk(board: Any) -> Iterator[Path]:
    """A file system of 24 MB on the board."""
    path = board.home / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)]
    if os.getuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: it takes root")
    yield path
    subprocess.run(["umount", str(path)], check=True)
    path.rmdir()


def test_no_disk_space(board: Any, bundle: str, disk: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(10 << 20))
    code, _, err = board.deploy(bundle, "--target", "disk", "--no-check")
    assert code == DEPLOY_ERROR and "not enough disk" in err and f"free at {disk}" in err, err
    assert "16.0 MB to spare, 14.7 MB free" in err
    assert [path.name for path in disk.iterdir()] == ["filler"]  # found before anything was sent

    # Filled by somebody else while files are on their way.
    filler.unlink()
    public = (board.folder / "host_key.pub").read_text()
    with LinkEmulator(parse_link("1mbit"), f"127.0.0.1:{board.port}") as slow:
        ssh = board.ssh(slow.port, known=board.knows(slow.port, public))
        command = board.command(bundle, "--target", "disk", "--no-check", ssh=ssh)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 300
        while sum(path.stat().st_size for path in disk.rglob("*.part")) < 20_000 and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        _, err = process.communicate(timeout=300)
    assert process.returncode == DEPLOY_ERROR and "the disk is full: No space left on device" in err, err
    assert "the same command goes on from there" in err
    filler.unlink()
    code, out, err = board.deploy(bundle, "--target", "disk", "--no-check", "--seconds", "0.2")
    assert code == 0 and "from a transfer that was cut short" in out, err


def test_python_of_the_board(board: Any, small_bundle: Bundle, tmp_path: Path) -> None:
    roots = {Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")), Path.home() / ".pyenv"}
    (real,) = [*(str(path) for root in roots for path in root.glob("versions/3.6.*/bin/python")), ""][:1]
    stand_in = tmp_path / "old python"
    stand_in.write_text(OLD_PYTHON.format(python=sys.executable))
    stand_in.chmod(0o755)
    for_pi = bundle_for("raspberry-pi-5", small_bundle, tmp_path / "pi")
    code, _, err = board.deploy(for_pi, "--device", "raspberry-pi-5", python=real or str(stand_in))
    assert code == DEPLOY_ERROR and f"is Python {'3.6.' if real else '3.5.2'}" in err, err
    assert f"raspberry-pi-5 needs {profile('raspberry-pi-5').python} or newer" in err and "--python PATH" in err
    code, _, err = board.deploy(small_bundle.path, python=str(stand_in))
    assert code == DEPLOY_ERROR and "is Python 3.5.2, cpu needs 3.6 or newer" in err, err
    code, _, err = board.deploy(small_bundle.path, python="python9")
    assert code == DEPLOY_ERROR and "python9 cannot be run there" in err and "python9" in err.splitlines()[-1], err


def test_what_only_the_board_can_tell(board: Any, small_bundle: Bundle, tmp_path: Path) -> None:
    for_nano = bundle_for("jetson-nano", small_bundle, tmp_path / "nano")
    code, _, err = board.deploy(for_nano, "--no-check")
    assert code == DEPLOY_ERROR and "cannot import tensorrt" in err and "comes with JetPack" in err, err
    words = (small_bundle.path, "--no-check", "--seconds", "0.2", "--target", "told", "--json")
    code, out, err = board.deploy(*words, "--", "--backend", "null")
    assert code == DEPLOY_ERROR and "the check failed there (exit code 8): error: " in err and "golden" in err, err
    assert json.loads(out.splitlines()[-1])["event"] == "failed"
    code, _, err = board.deploy(*words, "--server", "127.0.0.1:1", "--", "--data", "/nowhere")
    assert code == DEPLOY_ERROR and "exit code 6 (an error)" in err and "/nowhere" in err, err
    code, _, err = board.deploy(*words, "--server", "127.0.0.1:1", "--", "--share", "5/2")
    assert code == DEPLOY_ERROR and "exit code 2 (an error)" in err and "it said: error: share '5/2'" in err, err


def test_a_connection_that_breaks(board: Any, bundle: str) -> None:
    public = (board.folder / "host_key.pub").read_text()
    with LinkEmulator(parse_link("1mbit"), f"127.0.0.1:{board.port}") as line:
        ssh = board.ssh(line.port, known=board.knows(line.port, public))
        command = board.command(bundle, "--target", "broken", "--no-check", ssh=ssh)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 300
        while not list((board.home / "broken").rglob("*.part")) and time.monotonic() < until:
            time.sleep(0.01)
    _, err = process.communicate(timeout=300)
    assert process.returncode == DEPLOY_ERROR and "the connection broke; the same command goes on" in err, err


def test_mistakes_show_before_the_board_is_spoken_to(board: Any, bundle: str) -> None:
    ssh = "ssh-that-is-not-there"
    code, _, err = board.deploy(bundle, "--device", "jetson", ssh=ssh)
    assert code == DEPLOY_ERROR and "exported for cpu" in err and "`edgekit export small --cut features --dev" in err
    code, _, err = board.deploy(bundle, "--", "--epoch", "many", ssh=ssh)
    assert code == 2 and "invalid int value: 'many'" in err
    code, _, err = board.deploy(bundle, ssh=ssh)
    assert code == DEPLOY_ERROR and "ssh-that-is-not-there cannot be started" in err

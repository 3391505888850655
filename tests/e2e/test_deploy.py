"""`edgekit deploy` to a real sshd on loopback: first, again, interrupted, to a bare Python, by systemd."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import sklearn

from edgekit.bundle import Bundle
from edgekit.identity import authority
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import parse_link
from tests.enrolled import Enrolled
from tests.package_index import pip

QUICK = ("--seconds", "0.2")


@pytest.fixture(scope="module")
def server(small_bundle: Bundle) -> Iterator[str]:
    """The address of a real `edgekit serve`, behind a line that is slow.

    A device that trains in the background mostly waits for it then, and leaves the processors to the deployments.
    """
    command = [sys.executable, "-m", "edgekit", "serve", small_bundle.path, "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    with LinkEmulator(parse_link("1mbit"), address) as line:
        yield f"127.0.0.1:{line.port}"
    process.terminate()
    process.communicate(timeout=300)


def steps(out: str) -> dict[str, dict[str, Any]]:
    events = [json.loads(line) for line in out.splitlines()]
    return {event["step"]: event for event in events if event["event"] == "step"}


def test_first_deployment_then_nothing_then_status_logs_and_stop(board: Any, bundle: str, server: str) -> None:
    words = (bundle, "--device", "cpu", "--target", "a b'c", "--server", server, "--name", "one", *QUICK)
    run = ("--", "--epochs", "2000", "--limit", "320")
    manage = ("--target", "a b'c", "--name", "one")

    code, out, err = board.deploy(*words, "--dry-run", *run)
    assert code == 0 and not (board.home / "a b'c").exists(), err
    assert out.count("[planned]") == 5 and "would send 13 files" in out and "one.sh" in out

    code, out, err = board.deploy(*words, "--json", *run)
    assert code == 0, err + out
    first = steps(out)
    assert [step for step, event in first.items() if event["state"] == "done"] == [
        "rules", "files", "check", "service", "health",
    ]  # fmt: skip
    assert "images/s encoded" in first["check"]["text"] and "connected" in first["health"]["text"]

    code, out, err = board.deploy(*words, "--json", *run)
    again = steps(out)
    assert code == 0 and list(again) == list(first), err
    assert {event["state"] for event in again.values()} == {"nothing to do"}, out
    assert "runs as asked for" in again["service"]["text"]

    until = time.monotonic() + 300
    status: dict[str, Any] = {}
    while not status.get("epoch") and time.monotonic() < until:
        code, out, err = board.deploy(*manage, "--status", "--json")
        status = json.loads(out)
    assert status["running"] and status["epoch"] >= 1 and status["accuracy"] > 10 and status["server"] == server
    code, out, err = board.deploy(*manage, "--logs")
    event = json.loads(out.splitlines()[0])
    assert event["event"] in ("opened", "connected", "progress", "epoch")
    assert event["device"] == socket.gethostname()  # the board's own name, as it is behind a port of this machine

    code, out, err = board.deploy(*manage, "--stop")
    assert code == 0 and out == "one: it was asked to end: it has ended with exit code 130 (stopped on request)\n", err
    code, out, err = board.deploy("--target", "a b'c", "--status")
    assert code == 0 and out.startswith("one: it has ended with exit code 130") and "epoch" in out, err


@pytest.mark.usefixtures("heard")
def test_what_was_interrupted_goes_on(board: Any, bundle: str) -> None:
    target = board.home / "interrupted"
    public = (board.folder / "host_key.pub").read_text()
    words = (bundle, "--target", "interrupted", "--no-check", "--json", *QUICK)
    with LinkEmulator(parse_link("1mbit"), f"127.0.0.1:{board.port}") as slow:
        process = subprocess.Popen(
            board.command(*words, ssh=board.ssh(slow.port, known=board.knows(slow.port, public))),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 300
        while sum(path.stat().st_size for path in target.rglob("*.part")) < 40_000 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "files" not in steps(out), out
    assert "what was sent stays on the board: the same command goes on from there" in err and "stopped" in err
    (part,) = target.rglob("*.part")
    there = part.stat().st_size
    assert there >= 40_000

    with LinkEmulator(parse_link("1gbit"), f"127.0.0.1:{board.port}") as counted:
        fast = board.ssh(counted.port, known=board.knows(counted.port, public))
        code, out, err = board.deploy(*words, ssh=fast)
        up = counted.bytes["up"]
    assert code == 0, err + out
    files = [*target.glob("bundles/*/*"), *target.glob("device/*")]
    rest = sum(path.stat().st_size for path in files) - there
    assert f"13 of 13 files sent, {rest} B" in steps(out)["files"]["text"]
    assert "from a transfer that was cut short" in steps(out)["files"]["text"]
    # The rest, and what asks and answers: a script of 4 kB for each question.
    assert rest < up < rest + 130_000
    assert list(target.rglob("*.part")) == []


def test_a_bare_python_gets_an_environment(board: Any, bundle: str, tmp_path: Path) -> None:
    roots = {Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")), Path.home() / ".pyenv"}
    bare = [str(path) for root in sorted(roots) for path in sorted(root.glob("versions/3.6.*/bin/python"))]
    if not bare:
        pytest.skip("no Python 3.6 in pyenv here")
    platforms = [word for name in ("manylinux2014_x86_64", "manylinux_2_17_x86_64") for word in ("--platform", name)]
    wanted = ["--python-version", "36", "numpy==1.19.5", "onnxruntime==1.10.0", "grpcio==1.48.2", "pip==21.3.1"]
    pip(sys.executable, "download", "-q", "-d", str(tmp_path), *platforms, *wanted)
    data = str(Path(sklearn.__file__).parent / "datasets" / "data")
    wheels = ("--target", "bare", "--no-check", "--wheels", str(tmp_path))
    words = ("--json", *QUICK, "--", "--data", data)
    code, out, err = board.deploy(bundle, *wheels, *words, python=bare[-1])
    assert code == 0, err + out
    done = steps(out)
    assert "numpy==1.19.5" in done["environment"]["text"] and "grpc 1.48.2" in done["environment"]["text"]
    assert "images/s encoded" in done["check"]["text"]
    code, out, err = board.deploy(bundle, *wheels, "--dry-run", *words, python=bare[-1])
    assert code == 0, err
    assert {steps(out)[name]["state"] for name in ("files", "environment", "check")} == {"nothing to do"}


def test_a_script_that_sets_variables_is_the_python(board: Any, bundle: str, server: str) -> None:
    site = Path(numpy.__file__).parent.parent
    script = board.home / "a python"
    base = getattr(sys, "_base_executable", sys.executable)
    # Without it that Python has no numpy, nor anything else.
    script.write_text(f'#!/bin/sh\nexport PYTHONPATH="{site}:$PYTHONPATH"\nexec {base} -S "$@"\n')
    script.chmod(0o755)
    words = (bundle, "--name", "script", "--target", "script", "--no-check", "--server", server, "--json", *QUICK)
    code, out, err = board.deploy(*words, python=str(script))
    assert code == 0, err + out
    done = steps(out)
    assert done["environment"]["text"].startswith(f"{script} (Python 3.") and "connected" in done["health"]["text"]
    assert f"'{script}' -m edgekit.runtime" in (board.home / "script" / "script.sh").read_text()
    assert not (board.home / "script" / "environment").exists()
    board.deploy("--target", "script", "--stop")


def test_a_configuration_that_shares_connections(board: Any, bundle: str, tmp_path: Path) -> None:
    shared = f"ControlMaster auto\nControlPersist yes\nControlPath {tmp_path}/shared\nRemoteCommand echo no"
    config = board.config(shared)
    code, out, err = board.deploy(bundle, "--target", "shared", "--no-check", *QUICK, ssh=f"ssh -F {config}")
    assert code == 0 and "images/s encoded" in out, err + out
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=300).stdout
    assert str(config) not in left and list(tmp_path.iterdir()) == []


def test_systemd_of_the_user_runs_it(systemd_board: Any, bundle: str, server: str) -> None:
    words = (bundle, "--name", "unit", "--no-check", "--server", server, "--json", *QUICK, "--", "--epochs", "2000")
    code, out, err = systemd_board.deploy(*words)
    assert code == 0, err + out
    assert "started by systemd" in steps(out)["service"]["text"]
    pid = json.loads(systemd_board.deploy("--status", "--json")[1])["pid"]
    assert pid is not None
    code, out, err = systemd_board.deploy(*words, "--seed", "1")  # something else: the old one gives way
    assert code == 0 and "stopped on request" in steps(out)["service"]["text"], out + err
    code, out, err = systemd_board.deploy("--status", "--json")
    status = json.loads(out)
    assert status["running"] and status["pid"] != pid and status["service"] == "systemd"
    code, out, err = systemd_board.deploy("--stop")
    assert code == 0 and "exit code 130 (stopped on request)" in out, err


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    return Enrolled(tmp_path)


@pytest.fixture
def tls_server(bundle: str, enrolled: Enrolled) -> Iterator[str]:
    """The address of a server that takes enrolled devices alone."""
    command = [sys.executable, "-m", "edgekit", "serve", bundle, "--listen", "127.0.0.1:0", "--json"]
    process = subprocess.Popen([*command, "--identity", enrolled.folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    process.terminate()
    process.communicate(timeout=300)


def test_a_board_is_enrolled_in_one_go(board: Any, bundle: str, enrolled: Enrolled, tls_server: str) -> None:
    """Key and request by the board's openssl, the certificate back over ssh; revoked, it is not enrolled again."""
    words = (
        bundle,
        "--target",
        "with tls",
        "--server",
        tls_server,
        "--identity",
        enrolled.folder,
        "--no-check",
        "--json",
    )
    run = (*QUICK, "--", "--epochs", "100000", "--limit", "320", "--name", "a/b ä")
    code, out, err = board.deploy(*words, "--dry-run", *run)
    assert code == 0 and steps(out)["identity"]["state"] == "planned" and authority.entries(enrolled.folder) == [], err
    code, out, err = board.deploy(*words, *run)
    assert code == 0, err + out
    done = steps(out)
    assert "a/b ä enrolled until 20" in done["identity"]["text"] and "connected" in done["health"]["text"]
    (folder,) = (board.home / "with tls" / "identity").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "device.csr", "device.key", "device.pem"]
    assert (folder / "device.key").stat().st_mode & 0o777 == 0o600
    code, out, err = board.deploy(*words, *run)
    assert code == 0, err + out
    assert [steps(out)[name]["state"] for name in ("identity", "service", "health")] == ["nothing to do"] * 3
    assert [entry.name for entry in authority.entries(enrolled.folder)] == ["a/b ä"]

    authority.revoke(enrolled.folder, "a/b ä")
    until = time.monotonic() + 300
    while json.loads((said := board.deploy("--target", "with tls", "--status", "--json"))[1])["running"]:
        assert time.monotonic() < until
    assert "was revoked" in said[1], said
    code, out, err = board.deploy(*words, *run)
    assert code == 16 and "the key of this request was revoked as a/b ä" in err, err

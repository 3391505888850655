"""The unit as systemd reads it, the script as a shell runs it, and the arguments of the device process."""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgekit.deploy
from edgekit.deploy.deployment import Deployment, Settings
from edgekit.deploy.local import arguments
from edgekit.deploy.service import kind_of, script_text, unit_text, unit_word
from edgekit.deploy.ssh import Ssh
from edgekit.errors import DeployError, UsageError
from edgekit.runtime.__main__ import parser

#: A stand-in for the device process: tells what it was given, ends as a device process does when asked to.
PROCESS = """#!/bin/sh
echo "$PYTHONPATH|$GIVEN|$*|$(pwd)"
trap 'exit 130' TERM
while :; do sleep 0.05; done
"""


def deployment(target: str, python: str = "python3", **settings: Any) -> Deployment:
    """One whose steps before the service are done."""
    given = Settings("bundle", None, "board", server="10.0.0.2:50051", **settings)
    d = Deployment(given, Ssh("board"), "", lambda event: None)
    d.facts = SimpleNamespace(target=target, systemd="running", linger="yes")  # type: ignore[assignment]
    d.bundle = SimpleNamespace(model="100%\n$HOME", digest="0123456789abcdef0")  # type: ignore[assignment]
    d.profile = SimpleNamespace(name="cpu")  # type: ignore[assignment]
    d.options = argparse.Namespace(backend="onnxruntime", name=None)
    d.name, d.python = "name", python
    d.files = [SimpleNamespace(to=f"{target}/device/part.zip")]  # type: ignore[list-item]
    return d


@pytest.mark.parametrize("folder", ["plain", "a b", 'q"u\\o%te$X', "ä'"])
def test_systemd_takes_the_unit(tmp_path: Path, folder: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    target = tmp_path / folder
    target.mkdir()
    unit = tmp_path / "edgekit-name.service"
    unit.write_text(unit_text(deployment(str(target))))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "--user", "--man=no", "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert "edgekit-name.service" not in done.stderr, done.stderr
    broken = tmp_path / "edgekit-broken.service"
    broken.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=some"))
    done = subprocess.run([*command[:-1], str(broken)], capture_output=True, text=True, env=environment, timeout=300)
    assert "edgekit-broken.service" in done.stderr  # it does look


def test_a_word_of_a_unit_is_no_specifier_or_variable() -> None:
    assert unit_word('a b%h$HOME"\\') == '"a b%%h$$HOME\\"\\\\"'


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_script_hands_on_signals_and_keeps_the_exit_code(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    target = tmp_path / "a 'b $c"
    target.mkdir()
    process = tmp_path / "pro cess"
    process.write_text(PROCESS)
    process.chmod(0o755)
    environment = ("GIVEN=x 'y", "PYTHONPATH=/more")
    d = deployment(str(target), str(process), environment=environment, arguments=("--data", "d $e"))
    base = target / "name"
    base.with_suffix(".log").write_text("older")
    base.with_suffix(".sh").write_text(script_text(d))
    home = {**os.environ, "HOME": str(tmp_path)}
    run = subprocess.Popen([shell, str(base.with_suffix(".sh"))], env=home, cwd="/")
    until = time.monotonic() + 300
    log = base.with_suffix(".log")
    while not (base.with_suffix(".pid").exists() and log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert base.with_suffix(".pid").read_text() == f"{run.pid}\n"
    run.send_signal(signal.SIGTERM)
    assert run.wait(300) == 130
    assert base.with_suffix(".exit").read_text() == "130\n"
    assert (target / "name.log.old").read_text() == "older"
    words = f"-m edgekit.runtime {d.bundle_path} --server 10.0.0.2:50051 --backend onnxruntime --json"
    words += " --name board --data d $e"
    assert log.read_text() == f"{target}/device/part.zip:/more|x 'y|{words}|{tmp_path}\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"insecure": True}, ["--insecure"]),
        ({"identity": "ca"}, ["--identity", "/t/identity/a%2Fb%20%C3%A4"]),
    ],
)
def test_the_script_says_how_the_line_is_made(settings: dict[str, Any], words: list[str]) -> None:
    d = deployment("/t", **settings)
    d.options.name = "a/b ä"
    assert f" --server 10.0.0.2:50051 {' '.join([*words, '--backend'])} onnxruntime " in script_text(d)


@pytest.mark.parametrize(
    ("systemd", "linger", "wanted", "kind"),
    [
        ("running", "yes", "auto", "systemd"),
        ("degraded", "", "auto", "systemd"),
        ("running", "no", "auto", "process"),
        ("offline", "", "auto", "process"),
        ("", "", "auto", "process"),
        ("running", "yes", "process", "process"),
        ("offline", "", "systemd", None),
        ("running", "no", "systemd", None),
    ],
)
def test_what_starts_the_process(systemd: str, linger: str, wanted: str, kind: str | None) -> None:
    d = deployment("/home/me/edgekit", service=wanted)
    d.facts = SimpleNamespace(target="/", systemd=systemd, linger=linger)  # type: ignore[assignment]
    if kind is None:
        with pytest.raises(DeployError, match="--service process does without"):
            kind_of(d)
    else:
        assert kind_of(d)[0] == kind and kind_of(d)[1]


@pytest.mark.parametrize(
    ("host", "words", "name"),
    [
        ("nano", (), "nano"),
        ("me@nano", ("--epochs", "3"), "nano"),
        ("me@10.0.0.7", (), "10.0.0.7"),
        ("me@nano", ("--name", "left"), "left"),
        ("me@nano", ("--nam=left",), "left"),
    ],
)
def test_the_device_is_named_after_its_board(host: str, words: tuple[str, ...], name: str) -> None:
    d = deployment("/edgekit", arguments=words)
    d.ssh, d.options = Ssh(host), arguments(words, "onnxruntime")
    (line,) = (line for line in script_text(d).splitlines() if "-m edgekit.runtime" in line)
    told = shlex.split(line.partition(" -m edgekit.runtime ")[2].partition(" </dev/null")[0])
    assert parser("").parse_args(told).name == d.device_name == name
    assert sum(word.startswith("--nam") for word in told) == 1


def test_arguments_of_the_device_process() -> None:
    assert arguments(("--epochs", "3"), "tensorrt").backend == "tensorrt"
    assert arguments(("--backend", "reference"), "tensorrt").backend == "reference"
    for words, message in (
        (("--epochs", "x"), "invalid int value"),
        (("--nothing",), "unrecognized arguments: --nothing"),
        (("another",), "unrecognized arguments: another"),
        (("--server", "a:1"), "--server after --"),
        (("--measure", "1"), "--measure after --"),
        (("--name", " left"), "device name ' left' of 5 characters"),
        (("--backend", "tensorr"), "unknown backend 'tensorr': did you mean tensorrt"),
    ):
        with pytest.raises(UsageError, match=message):
            arguments(words, "onnxruntime")


def test_the_process_on_the_board_is_known_by_its_script(tmp_path: Path) -> None:
    script = (Path(edgekit.deploy.__file__).parent / "on_board" / "process.py").read_text()
    scope: dict[str, Any] = {"__name__": "process"}
    exec(script, scope)
    base = str(tmp_path / "name")
    Path(base + ".sh").write_text("sleep 60")
    assert scope["running"](base) is None and scope["state"](base)["for_s"] is None
    Path(base + ".pid").write_text(f"{os.getpid()}\n")  # an id that another program has got
    assert scope["running"](base) is None
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)", base + ".sh"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert run.stdout is not None and run.stdout.readline()
    Path(base + ".pid").write_text(f"{run.pid}\n")
    assert scope["running"](base) == run.pid
    run.kill()
    run.communicate()
    assert scope["running"](base) is None and scope["stop"](base, 1.0) == {"how": "none"}

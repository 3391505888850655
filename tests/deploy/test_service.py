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
from edgekit.deploy import service
from edgekit.deploy.answer import Answer
from edgekit.deploy.deployment import Deployment, Settings
from edgekit.deploy.local import arguments
from edgekit.deploy.process import events, restarting, said
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


#: Another, for what comes after its end: it notes its last argument, and says and ends as a line of the file `codes`
#: tells it, by a signal where the code is negative.
ENDING = """#!/bin/sh
for word; do last=$word; done
echo "$last" >>{folder}/runs
read -r code words <{folder}/codes
sed -i 1d {folder}/codes
echo "$words"
[ "$code" -ge 0 ] || kill $code $$
exit $code
"""


def facts(target: str, systemd: str = "running", linger: str = "yes", no_units: str = "") -> Any:
    return SimpleNamespace(target=target, node="the-node", systemd=systemd, linger=linger, no_units=no_units)


def deployment(target: str, python: str = "python3", out: str | None = None, **settings: Any) -> Deployment:
    """One whose steps before the service are done."""
    given = Settings("bundle", None, "board", server="10.0.0.2:50051", **settings)
    d = Deployment(given, Ssh("board"), "", lambda event: None)
    d.facts = facts(target)
    d.bundle = SimpleNamespace(model="100%\n$HOME", digest="0123456789abcdef0")  # type: ignore[assignment]
    d.profile = SimpleNamespace(name="cpu")  # type: ignore[assignment]
    d.options = argparse.Namespace(backend="onnxruntime", name=None, out=out)
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


def ran(
    tmp_path: Path, *codes: str, overwrite: bool = False, out: str | None = None
) -> tuple[int, list[str], list[tuple[int, int]]]:
    """What the script comes to with a process that ends so: its exit code, a last argument a run, and its restarts."""
    process = tmp_path / "process"
    process.write_text(ENDING.format(folder=tmp_path))
    process.chmod(0o755)
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    d = deployment(str(tmp_path), str(process), out)
    (tmp_path / "name.sh").write_text(script_text(d))
    if overwrite:
        (tmp_path / "name.overwrite").touch()
    command = ["sh", str(tmp_path / "name.sh")]
    code = subprocess.run(command, env={**os.environ, "HOME": str(tmp_path)}, timeout=300, check=False).returncode
    assert (tmp_path / "name.exit").read_text() == f"{code}\n" and not (tmp_path / "name.overwrite").exists()
    told = events((tmp_path / "name.log").read_text().splitlines())
    restarts = [(event["code"], event["wait_s"]) for event in told if event["event"] == "restarts"]
    return code, (tmp_path / "runs").read_text().split(), restarts


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 0)


@pytest.mark.usefixtures("at_once")
def test_it_is_started_again_where_that_helps(tmp_path: Path) -> None:
    assert ran(tmp_path, "9", "-9", "9", "-11", "0") == (0, ["board"] * 5, [(9, 0), (137, 0), (9, 0), (139, 0)])


@pytest.mark.parametrize("code", [0, 1, 2, 5, 6, 8, 10, 12, 15, 130, -15])
def test_it_is_not_where_the_same_would_come_again_or_was_meant(tmp_path: Path, code: int) -> None:
    assert ran(tmp_path, str(code), "0") == (code if code >= 0 else 128 - code, ["board"], [])


@pytest.mark.usefixtures("at_once")
def test_one_that_crashes_again_and_again_is_given_up(tmp_path: Path) -> None:
    code, runs, restarts = ran(tmp_path, *["-4"] * 9)
    assert code == 132 and len(runs) == 6 and restarts == [(132, 0)] * 5


@pytest.mark.usefixtures("at_once")
def test_a_line_that_breaks_is_tried_on_and_on(tmp_path: Path) -> None:
    assert ran(tmp_path, *["9"] * 12, "0")[0] == 0


def test_pauses_grow_to_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 1)
    monkeypatch.setattr(service, "LONGEST_S", 3)
    # `sleep` would be waited for.
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "sleep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ran(tmp_path, *["9"] * 4, "0")[2] == [(9, 1), (9, 2), (9, 3), (9, 3)]
    monkeypatch.setattr(service, "LONG_S", 0)
    (tmp_path / "runs").unlink()
    assert ran(tmp_path, *["9"] * 3, *["-9"] * 9, "0")[2] == [(9, 1)] * 3 + [(137, 1)] * 9


@pytest.mark.usefixtures("at_once")
def test_what_it_kept_itself_is_not_overwritten_after_its_death(tmp_path: Path) -> None:
    connected = '{"event": "connected"}'
    _, runs, _ = ran(tmp_path, "9", f"9 {connected}", "9", "0", overwrite=True)
    assert runs == ["--overwrite", "--overwrite", "board", "board"]


@pytest.mark.usefixtures("at_once")
def test_it_goes_on_with_what_it_kept(tmp_path: Path) -> None:
    connected = '{"event": "connected"}'
    assert ran(tmp_path, "9", f"9 {connected}", "0", out="kept")[1] == ["--resume"] * 3
    (tmp_path / "runs").unlink()
    _, runs, _ = ran(tmp_path, "9", f"9 {connected}", "9", "0", overwrite=True, out="kept")
    assert runs == ["--overwrite", "--overwrite", "--resume", "--resume"]


def test_it_can_be_stopped_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 3600)
    process = tmp_path / "process"
    process.write_text("#!/bin/sh\nexit 9\n")
    process.chmod(0o755)
    (tmp_path / "name.sh").write_text(script_text(deployment(str(tmp_path), str(process))))
    run = subprocess.Popen(["sh", str(tmp_path / "name.sh")], env={**os.environ, "HOME": str(tmp_path)})
    until = time.monotonic() + 300
    while not ((tmp_path / "name.log").exists() and "restarts" in (tmp_path / "name.log").read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)
    state = Answer({"pid": run.pid, "log": (tmp_path / "name.log").read_text()}, "board")
    assert restarting(state) == "it ended with exit code 9, and is started again 3600 s later" and said(state) == ""
    run.send_signal(signal.SIGTERM)
    assert run.wait(300) == 130 and (tmp_path / "name.exit").read_text() == "130\n"


def test_what_came_before_a_restart_counts_no_more() -> None:
    log = '{"event": "connected", "step": 1, "steps": 9}\n{"event": "restarts", "code": 9, "wait_s": 5}\n'
    assert said(Answer({"log": log}, "board")) == "" and said(Answer({"log": log[:45]}, "board")) == "step 1 of 9"
    again = Answer({"log": log + '{"event": "connected", "step": 0, "steps": 9}\n'}, "board")
    assert said(again) == "step 0 of 9" and restarting(again)


def test_without_a_place_for_units_it_does_without() -> None:
    d = deployment("/edgekit")
    d.facts = facts("/", no_units="the file system of /home/me is read-only")
    assert kind_of(d)[0] == "process" and "no unit can be written there: the file system" in kind_of(d)[1]
    d.settings = d.settings._replace(service="systemd")
    with pytest.raises(DeployError, match="no unit can be written there"):
        kind_of(d)


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
    d.facts = facts("/", systemd, linger)
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
        ("me@localhost", (), "the-node"),
        ("127.0.0.1", (), "the-node"),
        ("::1", ("--name", "left"), "left"),
        ("me@nano", ("--name", "left"), "left"),
        ("me@nano", ("--nam=left",), "left"),
    ],
)
def test_the_device_is_named_after_its_board(host: str, words: tuple[str, ...], name: str) -> None:
    d = deployment("/edgekit", arguments=words)
    d.ssh, d.options = Ssh(host), arguments(words, "onnxruntime")
    (line,) = (line for line in script_text(d).splitlines() if "-m edgekit.runtime" in line)
    told = shlex.split(line.partition(" -m edgekit.runtime ")[2].partition(" ${overwrite:-")[0])
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
        (("--overwrite",), "--overwrite after --"),
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
    assert scope["running"](base) is None and scope["state"](base, [])["for_s"] is None
    assert scope["state"](base, [base + ".sh", base + ".log"])["kept"] == [base + ".sh"]
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

"""What comes from a board: any bytes give facts or a DeployError, and the probe runs on old Pythons."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekit.deploy
from edgekit.deploy.answer import MARK, answered, command, parse
from edgekit.deploy.board import Facts, Module, lacking
from edgekit.deploy.board import parse as facts_of
from edgekit.deploy.environment import download
from edgekit.deploy.process import ended, last_words, said
from edgekit.deploy.record import parse as parse_record
from edgekit.deploy.ssh import Done, Ssh
from edgekit.errors import DeployError

FOLDER = Path(edgekit.deploy.__file__).parent / "on_board"
GOOD: dict[str, Any] = {
    "python": [3, 6, 9], "executable": "/usr/bin/python3", "target": "/home/me/edgekit", "home": "/home/me",
    "machine": "aarch64", "system": "Linux", "node": "nano", "free_memory": None, "systemd": "running",
    "disk": {"free": 1 << 30, "refused": "", "noexec": False}, "units": "", "linger": "no",
    "time": 100.5, "modules": {"/usr/bin/python3": {"numpy": ["ok", "1.13.3"], "grpc": ["no", "why"]}},
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def facts(value: Any) -> Facts:
    return facts_of(parse(MARK + json.dumps(value).encode(), "board"), 100.0, 101.0)


@given(st.binary())
def test_any_bytes_give_a_deploy_error(raw: bytes) -> None:
    for data in (raw, MARK + raw, b"Welcome!\n" + MARK + raw + b"\n"):
        try:
            facts_of(parse(data, "board"), 0.0, 1.0)
        except DeployError as error:
            assert "board answered" in str(error)
        else:
            pytest.fail("no bytes at random are a whole answer")


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_an_answer_is_taken_or_refused(key: str, value: Any) -> None:
    try:
        found = facts({**GOOD, key: value})
    except DeployError:
        return
    assert isinstance(found, Facts) and all(type(part) is int for part in found.python)
    assert all(isinstance(module, Module) for found in found.modules.values() for module in found.values())


@given(JSON, JSON, JSON)
def test_any_state_of_a_process_is_told_or_refused(log: Any, code: Any, event: Any) -> None:
    try:
        text = log if isinstance(log, str) else json.dumps({"event": "epoch", "epoch": event, "accuracy": log})
        state = parse(MARK + json.dumps({"for_s": 1.0, "exit": code, "log": text}).encode(), "board")
        assert ended(state) and last_words(state) is not None and said(state) is not None
    except DeployError:
        pass


@given(st.text() | JSON)
def test_any_record_is_one_or_none(text: Any) -> None:
    assert parse_record(text) is None or isinstance(parse_record(text), dict)
    assert parse_record(json.dumps({"a": 1})) == {"a": 1}


def test_the_answer_is_found_among_what_a_login_prints() -> None:
    found = facts_of(parse(b"Welcome\n" + MARK + json.dumps(GOOD).encode() + b"\nbye\n", "board"), 100.0, 101.0)
    assert found.version == "3.6.9" and found.skew_s == 0.0
    assert facts({**GOOD, "time": 90.0}).skew_s == -10.0 and facts({**GOOD, "time": 111}).skew_s == 10.0
    lack = lacking(found, "/usr/bin/python3", ["numpy", "grpc"])
    assert lack == {"numpy": "1.13.3 is older than 1.19", "grpc": "why"}


def test_the_probe_keeps_to_python_2_7() -> None:
    text = (FOLDER / "probe.py").read_text()
    tree = ast.parse(text, feature_version=(3, 4))
    assert not any(isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.Nonlocal) for node in ast.walk(tree))
    assert not any(arg.annotation for node in ast.walk(tree) if isinstance(node, ast.arguments) for arg in node.args)
    for name in ("files", "process"):  # the others come after it
        ast.parse((FOLDER / f"{name}.py").read_text(), feature_version=(3, 6))


def pythons() -> list[str]:
    roots = {Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")), Path.home() / ".pyenv"}
    found = (path for root in roots for old in ("2.7", "3.6") for path in root.glob(f"versions/{old}.*/bin/python"))
    return [sys.executable, *map(str, found)]


@pytest.mark.parametrize("python", pythons())
def test_the_probe_answers(python: str, tmp_path: Path) -> None:
    modules = ["json", "no_such_module"]
    argument = json.dumps({"python": python, "target": str(tmp_path / "no" / "such"), "modules": modules})
    text = (FOLDER / "probe.py").read_text()
    done = subprocess.run([python, "-c", text, argument], capture_output=True, check=True, timeout=300)
    found = facts_of(parse(done.stdout, "board"), 0.0, 1e12)
    assert found.target == str(tmp_path / "no" / "such") and found.free_disk > 0
    if found.python >= (3, 6):
        assert found.executable == python
        assert found.modules[found.executable]["json"].version == "2.0.9"
        assert "No module named" in found.modules[found.executable]["no_such_module"].why


@pytest.mark.parametrize("word", ["a-python", "bin/a-python", "./bin/../bin/a-python"])
def test_the_probe_keeps_the_script_that_it_was_run_by(word: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "only_by_script.py").touch()
    script = tmp_path / "bin" / "a-python"
    script.write_text(f'#!/bin/sh\nexport PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    argument = json.dumps({"python": word, "target": "edgekit", "modules": ["only_by_script"]})
    text = (FOLDER / "probe.py").read_text()
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    command = [str(script), "-c", text, argument]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=True, timeout=300)
    found = facts_of(parse(done.stdout, "board"), 0.0, 1e12)
    assert found.executable == str(script) and not lacking(found, str(script), ["only_by_script"])


def test_a_python_that_is_not_fit_is_named() -> None:
    with Ssh("board") as ssh:
        for err, words in (
            ("  File\n    def text(path: str)\nSyntaxError: invalid syntax\n", "python2 is older than Python 3.6"),
            ("UnicodeEncodeError: 'ascii' codec can't encode characters", "python2 runs without a UTF-8 locale"),
        ):
            with pytest.raises(DeployError, match=words):
                answered(ssh, "python2", Done(1, b"", err))
        with pytest.raises(DeployError, match="ended with exit code 1 there: boom"):
            answered(ssh, "python2", Done(1, b"", "boom"))


def test_a_command_sets_variables() -> None:
    text = command("python3", "files", {"do": "read", "paths": []}, {"A": "b c"})
    assert text.startswith("A='b c' python3 -c ")
    assert command("python3", "files", {}).startswith("python3 -c ")


def test_wheels_of_new_pythons_are_asked_for_in_their_form() -> None:
    text = download(facts({**GOOD, "python": [3, 12, 3]}), [["numpy>=1.19"]])
    forms = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
    assert all(f"--platform {form}_aarch64 " in text for form in forms) and "--python-version 312 " in text


def test_a_module_that_crashes_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    argument = json.dumps({"python": sys.executable, "target": "edgekit", "modules": ["json", "crashing", "math"]})
    text = (FOLDER / "probe.py").read_text()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text, argument], capture_output=True, env=environment, timeout=300)
    (modules,) = facts_of(parse(done.stdout, "board"), 0.0, 1e12).modules.values()
    assert modules["crashing"].why == "its import ends Python with signal 4"
    assert modules["json"].version and modules["math"].version

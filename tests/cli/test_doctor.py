"""`edgekit doctor`: a board by name, text, JSON, and exit codes."""

import json
import os
import subprocess
import sys

import pytest

from edgekit.bundle import Bundle

NO_GPU = pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA GPU")


def doctor(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgekit", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ, COLUMNS="120"))


@NO_GPU
def test_a_board_that_this_is_not() -> None:
    done = doctor("--device", "jetson-nano")
    assert done.returncode == 8
    lines = done.stdout.splitlines()
    failed = [line.split()[1] for line in lines if line.startswith("FAILED")]
    assert "driver" in failed
    assert done.stderr == f"error: {', '.join(failed)} failed; what to do stands above\n"
    assert lines[-1].endswith("not fit to run tensorrt as jetson-nano")
    assert max(map(len, lines)) <= 120
    # Names, texts and what to do are three columns.
    (column,) = {line.index("-> ") for line in lines if line.lstrip().startswith("-> ")}
    findings = [line for line in lines[:-1] if not line.startswith(" ")]
    assert {line[column - 2 : column] for line in findings} == {"  "}
    assert all(line[column] != " " for line in findings)


def test_a_bundle_on_this_machine(small_bundle: Bundle) -> None:
    done = doctor(small_bundle.path)
    assert done.returncode == 0, done.stdout
    assert done.stderr == "" and done.stdout.splitlines()[-1].endswith(": fit to run onnxruntime as cpu")


@NO_GPU
def test_a_device_goes_before_the_bundles_own(small_bundle: Bundle) -> None:
    told = json.loads(doctor(small_bundle.path, "--device", "jetson-nano", "--json").stdout)
    assert (told["device"], told["backend"], told["bundle"]) == ("jetson-nano", "tensorrt", small_bundle.digest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "jetson-nan"], "unknown device 'jetson-nan': did you mean jetson-nano"),
        (["--backend", "onnx"], "unknown backend 'onnx': did you mean onnxruntime"),
        (["--server", "10.0.0.2"], "expected HOST:PORT"),
    ],
)
def test_wrong_input(arguments: list[str], message: str) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""

"""edgekit check: what it prints, as text and as JSON, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

from edgekit import tensorfile
from edgekit.bundle import Bundle, write_bundle


def check(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgekit", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)


def test_a_good_bundle(small_bundle: Bundle) -> None:
    shown = check(small_bundle.path)
    assert shown.returncode == 0, shown.stderr
    assert "passed  deployed codes: 100.00% equal" in shown.stdout and "FAILED" not in shown.stdout
    assert "float16 scores: " in shown.stdout and "quantisation error" in shown.stdout
    machine = check(small_bundle.path, "--backend", "reference", "--no-reference", "--json")
    told = json.loads(machine.stdout)
    assert machine.returncode == 0 and told["passed"] and told["backend"] == "reference"
    assert not [each for each in told["checks"] if each["name"].startswith("reference")]


def test_a_bundle_with_other_golden_data(small_bundle: Bundle, tmp_path: Path) -> None:
    files = {name: small_bundle.read(name) for name in small_bundle.manifest["files"]}
    golden = small_bundle.arrays("golden.safetensors")
    golden["training.codes"] ^= 1
    files["golden.safetensors"] = tensorfile.dumps(golden)
    manifest = {key: value for key, value in small_bundle.manifest.items() if key not in ("format", "files")}
    write_bundle(str(tmp_path / "b"), manifest, files)
    shown = check(str(tmp_path / "b"))
    assert shown.returncode == 8 and "Traceback" not in shown.stderr
    assert "FAILED  training codes: 0.00% equal" in shown.stdout and "passed  deployed codes" in shown.stdout
    assert "error: " in shown.stderr and "training codes: got 0.00% equal" in shown.stderr
    assert "try --backend reference" in shown.stderr and "failed as well: training feature, decoded" in shown.stderr
    machine = check(str(tmp_path / "b"), "--json")
    assert machine.returncode == 8 and json.loads(machine.stdout)["passed"] is False


def test_no_bundle_and_no_backend(small_bundle: Bundle) -> None:
    assert check("nowhere").returncode == 5
    unknown = check(small_bundle.path, "--backend", "onnxrutime")
    assert unknown.returncode == 2 and "did you mean onnxruntime" in unknown.stderr

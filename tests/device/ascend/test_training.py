"""Training on the digits through the Ascend backend: real server and device processes, emulated pyACL and ATC."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from tests.conftest import SmallNet
from tests.device.ascend.board import ROOT, environment

EPOCHS = 3
VARIABLES = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """SmallNet for the Atlas 200 DK."""
    torch.manual_seed(0)
    return build_bundle(
        str(tmp_path_factory.mktemp("atlas") / "bundle"),
        Network(SmallNet(), "small", "features"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {"groups": 4, "bits": 4})),
        BoardSettings("atlas-200-dk"),
    )


def start(arguments: list[str], variables: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", *arguments, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, cwd=ROOT)


def trained(bundle: Bundle, backend: str, variables: dict[str, str]) -> tuple[dict[str, Any], str]:
    """The "done" event of a device that trained with `backend`, and what it wrote for people."""
    server = start(["edgekit", "serve", bundle.path, "--listen", "127.0.0.1:0"], {**VARIABLES, "PYTHONPATH": str(ROOT)})
    try:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        options = ["--server", f"127.0.0.1:{port}", "--epochs", str(EPOCHS), "--backend", backend]
        device = start(["edgekit.runtime", bundle.path, *options], {**VARIABLES, **variables})
        out, err = device.communicate(timeout=300)
        assert device.returncode == 0, err
        return json.loads(out.splitlines()[-1]), err
    finally:
        server.terminate()
        server.communicate(timeout=300)


def test_training_ends_where_onnxruntime_ends(bundle: Bundle, tmp_path: Path) -> None:
    acl, atc = tmp_path / "acl.jsonl", tmp_path / "atc.jsonl"
    board = {
        **environment(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "device" / "ascend" / "emulated")]),
        "EMULATED_ACL_RECORD": str(acl),
        "EMULATED_ATC_RECORD": str(atc),
    }
    with ThreadPoolExecutor() as pool:  # side by side: most of it is four processes that start
        running = pool.submit(trained, bundle, "onnxruntime", {"PYTHONPATH": str(ROOT)})
        ours, err = trained(bundle, "ascend", board)
        theirs, _ = running.result()
    assert ours["event"] == theirs["event"] == "done" and ours["images"] == theirs["images"]
    assert theirs["accuracy"] > 80
    assert abs(ours["accuracy"] - theirs["accuracy"]) <= 0.5
    # The exported weights, and those after each epoch.
    assert len(atc.read_text().splitlines()) == 1 + EPOCHS
    assert err.count("atc took") == 1 + EPOCHS
    (record,) = (json.loads(line) for line in acl.read_text().splitlines())
    assert record["left"] == {} and record["codes"] == []
    calls = record["calls"]
    assert [calls.count(f"acl_{name}") for name in ("init", "rt_create_context", "mdl_load_from_file")] == [1, 1, 4]
    # Every test image of each epoch, in batches of 32.
    assert calls.count("acl_mdl_execute") > EPOCHS * 359 // 32


def test_without_cann_a_device_says_so(bundle: Bundle) -> None:
    command = ["edgekit", "run", bundle.path, "--server", "127.0.0.1:1", "--backend", "ascend"]
    device = start(command, {**VARIABLES, "PYTHONPATH": str(ROOT)})
    _, err = device.communicate(timeout=300)
    assert device.returncode == 8 and "Traceback" not in err
    assert "backend 'ascend' cannot run here: pyACL (module acl) is not on Python's path" in err and "set_env.sh" in err


def test_an_atc_that_fails_ends_the_device_with_its_reason(bundle: Bundle, tmp_path: Path) -> None:
    variables = {
        **VARIABLES,
        **environment(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "device" / "ascend" / "emulated")]),
        "EMULATED_ACL_RECORD": str(tmp_path / "acl.jsonl"),
        "EMULATED_ATC_FAIL": "EZ3003: No supported Ops kernel and engine are found for [Gather_1], optype [Gather].",
    }
    command = ["edgekit", "run", bundle.path, "--server", "127.0.0.1:1", "--backend", "ascend"]
    device = start(command, variables)
    _, err = device.communicate(timeout=300)
    assert device.returncode == 8 and "Traceback" not in err
    assert "error: front.onnx on ascend: atc ended with 255" in err and "[Gather_1]" in err
    assert json.loads((tmp_path / "acl.jsonl").read_text())["left"] == {}

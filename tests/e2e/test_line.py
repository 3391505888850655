"""The whole line with real processes and sockets: training, what a device loads, and every way it can break."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit
from edgekit import tensorfile
from edgekit.bundle import Bundle, open_bundle
from edgekit.data.base import Dataset
from edgekit.data.partition import shares

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(Path(edgekit.__file__).parent.parent), OMP_NUM_THREADS="1")
PYTHON = [sys.executable, "-m"]
DEVICES = ("device-0", "device-1", "device-2")


def start(*arguments: str, module: str = "edgekit", python: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    command = [sys.executable, *python, "-m", module, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    )


class Server:
    """`edgekit serve` on a free port."""

    def __init__(self, bundle: Bundle, *arguments: str) -> None:
        self.process = start("serve", bundle.path, "--listen", "127.0.0.1:0", "--json", *arguments)
        assert self.process.stdout is not None
        self.port = int(json.loads(self.process.stdout.readline())["port"])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
def server(small_bundle: Bundle) -> Iterator[Server]:
    """One that a test may break."""
    server = Server(small_bundle)
    yield server
    server.process.terminate()
    server.process.communicate(timeout=300)


@pytest.fixture(scope="module")
def shared_server(small_bundle: Bundle) -> Iterator[Server]:
    """One for all tests that leave it as it was: a server takes many devices, one after the other."""
    server = Server(small_bundle)
    yield server
    server.process.terminate()
    _, err = server.process.communicate(timeout=300)
    assert server.process.returncode == 130 and "Traceback" not in err, err


def device(bundle: Bundle, address: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    return start(bundle.path, "--server", address, "--json", *arguments, module="edgekit.runtime", **options)


def test_train_on_one_machine(tmp_path: Path) -> None:
    """The command of the README, small: table, record, trained halves, and the summary as JSON."""
    command = [
        "train",
        "mobilenet_v1",
        "--input",
        "1,16,16",
        "--epochs",
        "1",
        "--limit",
        "256",
        "--out",
        str(tmp_path / "out"),
    ]
    process = start(*command, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    last = json.loads(out)
    lines = [json.loads(line) for line in (tmp_path / "out" / "record.jsonl").read_text().splitlines()]
    assert lines[-1] == last and last["event"] == "summary"
    assert [line["event"] for line in lines].count("done") == 2
    assert last["images"] == 256 and last["codec"] == "sgq" and last["cut"] == "blocks.3.depthwise"
    assert 0 <= last["accuracy"] <= 100 and last["images_per_s"] > 0
    c, h, w = last["feature"]
    indices = 8 * h * w * 4 / 8
    assert indices < last["bytes_up_per_image"] < 4 * c * h * w / 8
    assert {"device_compute", "encode", "network", "server"} <= set(last["seconds"])
    for name in (
        "bundle/manifest.json",
        "server/back.safetensors",
        "device-0/front.safetensors",
        "device-1/tables.safetensors",
    ):
        assert (tmp_path / "out" / name).exists(), name
    assert "test accuracy" in err


def test_train_over_an_emulated_link(tmp_path: Path) -> None:
    """What the devices counted went over it, and so does the time; it ends with them."""
    size = ["--input", "1,16,16", "--epochs", "1", "--limit", "128"]
    process = start("train", "vgg11_thin", *size, "--link", "2mbit/1mbit+20ms", "--out", str(tmp_path), "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    last = json.loads(out)
    lines = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    assert last["link"] == lines[0]["link"] == "2mbit/1mbit+20ms" and last["images"] == 128
    (listening, carried) = (line for line in lines if line.get("process") == "link")
    assert listening["event"] == "listening" and carried["event"] == "carried" and carried["connections"] == 2
    for way in ("up", "down"):
        frames = sum(n for kind, n in last["bytes_by_kind"].items() if kind.startswith(way))
        assert frames < carried[f"bytes_{way}"] < 1.5 * frames + 10_000
    # Two steps of each device wait for their answers: the gradient at the rate of both, and the way there and back.
    gradients = 8 * last["bytes_by_kind"]["down.gradient"] / 2
    assert last["seconds"]["network"] > gradients / 1e6 + 2 * 0.02


def test_device_processes_never_load_torch(small_bundle: Bundle, shared_server: Server) -> None:
    process = device(
        small_bundle, shared_server.address, "--epochs", "1", "--limit", "128", python=("-X", "importtime")
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    loaded = {line.split("|")[-1].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "onnxruntime" in loaded and "grpc" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("torch", "onnx", "click", "rich", "sklearn")]
    assert not [name for name in loaded if name.startswith(("edgekit.server", "edgekit.export"))]
    assert json.loads(out.splitlines()[-1])["event"] == "done"


def until_connected(process: "subprocess.Popen[str]") -> None:
    """Reads what a device says until the server has taken it in."""
    assert process.stdout is not None
    while "connected" not in (line := process.stdout.readline()):
        assert line, "it ended before"


def test_server_gone(small_bundle: Bundle, server: Server) -> None:
    process = device(small_bundle, server.address, "--epochs", "200", "--reconnect", "1")
    until_connected(process)
    server.process.kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 9 and "the line to" in err and "Traceback" not in err


def test_other_bundle_is_refused_with_both_hashes(
    any_bundle: Bundle, small_bundle: Bundle, shared_server: Server
) -> None:
    if any_bundle.digest == small_bundle.digest:
        pytest.skip("the same bundle")
    _, err = (process := device(any_bundle, shared_server.address)).communicate(timeout=300)
    assert process.returncode == 10 and any_bundle.digest in err and small_bundle.digest in err


def test_port_that_is_taken(small_bundle: Bundle, shared_server: Server) -> None:
    process = start("serve", small_bundle.path, "--listen", shared_server.address)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 9 and shared_server.address in err and "Traceback" not in err


def test_garbage_on_the_stream_is_answered_and_others_go_on(small_bundle: Bundle, shared_server: Server) -> None:
    import grpc

    from edgekit.line import frame

    with grpc.insecure_channel(shared_server.address) as channel:
        replies = list(channel.stream_stream(frame.METHOD)(iter([b"garbage" * 10])))
    assert [frame.decode(reply).kind for reply in replies] == ["error"]
    process = device(small_bundle, shared_server.address, "--epochs", "1", "--limit", "64")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def test_dataset_of_other_classes(small_bundle: Bundle, shared_server: Server, tmp_path: Path) -> None:
    from PIL import Image

    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (16, 16)).save(tmp_path / part / name / "0.png")
    process = device(small_bundle, shared_server.address, "--dataset", "folder", "--data", str(tmp_path))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and "folder has 2 classes, the bundle was exported for 10" in err


def test_server_that_stays_silent(small_bundle: Bundle, server: Server) -> None:
    process = device(small_bundle, server.address, "--epochs", "200", "--timeout", "2", "--reconnect", "1")
    until_connected(process)
    server.process.send_signal(signal.SIGSTOP)
    try:
        _, err = process.communicate(timeout=300)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert process.returncode == 9 and "no reply from" in err and "Traceback" not in err


def test_serve_ends_after_its_devices(small_bundle: Bundle, tmp_path: Path) -> None:
    server = Server(small_bundle, "--devices", "1", "--out", str(tmp_path / "kept"))
    process = device(small_bundle, server.address, "--epochs", "1", "--limit", "64")
    assert process.wait(timeout=300) == 0
    process.communicate()
    _, err = server.process.communicate(timeout=300)
    assert server.process.returncode == 0, err
    assert (tmp_path / "kept" / "back.safetensors").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("heard")
def test_interrupt_leaves_no_orphan(tmp_path: Path, how: signal.Signals) -> None:
    size = ("--input", "1,16,16", "--limit", "64", "--epochs", "100000")
    process = start("train", "vgg11_thin", *size, "--out", str(tmp_path / "out"))
    record = tmp_path / "out" / "record.jsonl"
    deadline = time.monotonic() + 300
    while not (record.exists() and '"epoch"' in record.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    children = children_of(process.pid)
    assert len(children) == 3
    process.send_signal(how)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "stopped" in err and "Traceback" not in err
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def children_of(pid: int) -> list[int]:
    result = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in result.stdout.split()]


def test_share_is_used(small_bundle: Bundle, shared_server: Server, digits: Dataset) -> None:
    process = device(small_bundle, shared_server.address, "--epochs", "1", "--share", "1/4", "--name", "mine")
    out, _ = process.communicate(timeout=300)
    last = json.loads(out.splitlines()[-1])
    assert last["device"] == "mine"
    assert last["images"] == len(shares(digits.train_labels, 4, "iid", 0)[1]) < len(digits.train_labels) / 3


def test_devices_in_step_end_with_one_front_half(tmp_path: Path) -> None:
    """Three devices of different numbers of images, averaged in rounds: the front half is one, to the last bit."""
    size = ["--input", "1,16,16", "--epochs", "2", "--limit", "300", "--devices", "3", "--partition", "dirichlet:1"]
    process = start("train", "vgg11_thin", *size, "--sync-every", "2", "--out", str(tmp_path), "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["event"] == "round"]
    assert len(rounds) >= 4 and {line["devices"] for line in rounds} == {3}
    assert sum(line["images"] for line in rounds) == 2 * 300 == json.loads(out)["images"]
    tests = [line for line in lines if line["event"] == "tested"]
    assert len(tests) == 2 and all(line["devices"] == 3 for line in tests)
    for folder in ("", "best"):
        for name in ("front", "tables"):
            files = [tmp_path / part / folder / f"{name}.safetensors" for part in ("server", *DEVICES)]
            server, *devices = (file.read_bytes() for file in files)
            assert devices == [server] * 3, f"{folder} {name}"
        assert (tmp_path / "server" / folder / "back.safetensors").exists()
    bundle = open_bundle(str(tmp_path / "bundle"))
    moved = tensorfile.loads((tmp_path / "server" / "front.safetensors").read_bytes())
    before = bundle.arrays("front.safetensors")
    still = [name for name, array in moved.items() if np.array_equal(array, before[name])]
    assert not [name for name in still if not name.endswith("num_batches_tracked")]
    tables = tensorfile.loads((tmp_path / "server" / "tables.safetensors").read_bytes())
    assert not np.array_equal(tables["codebook"], bundle.tables()["codebook"])

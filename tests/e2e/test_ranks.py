"""A server of two processes, each with its devices: the training is that of one server, and a lost rank ends all."""

import contextlib
import hashlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bundle import Bundle
from edgekit.errors import TransportError
from tests.e2e.fleet import RECONNECT_S, Process, fleet

SHORT = ("--limit", "400", "--batch", "16", "--epochs", "3")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@contextlib.contextmanager
def ended(*processes: Process) -> Iterator[None]:
    """None of them is left behind."""
    try:
        yield
    finally:
        for each in processes:
            if each.process.poll() is None:
                each.process.kill()
        for each in processes:
            each.process.wait()
            each.close()


def serve(path: str, *words: str) -> list[str]:
    return [
        "-m",
        "edgekit",
        "serve",
        path,
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--reconnect",
        RECONNECT_S,
        "--checkpoint",
        "0",
        *words,
    ]


def device(path: str, folder: Path, index: int, port: int, *words: str) -> Process:
    out = str(folder / f"board-{index}")
    told = ["--server", f"127.0.0.1:{port}", "--name", f"board-{index}", "--share", f"{index}/4", "--out", out]
    return Process(["-m", "edgekit", "run", path, "--json", "--reconnect", RECONNECT_S, *told, *SHORT, *words])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def losses(device: Process) -> list[float]:
    return [event["loss"] for event in device.events if event["event"] == "epoch"]


def test_two_ranks_train_as_one_server_does(small_bundle: Bundle, tmp_path: Path) -> None:
    path = small_bundle.path
    with fleet(path, tmp_path / "one", "--devices", "4") as one:
        alone = [one.device(f"board-{i}", "--share", f"{i}/4", *SHORT) for i in range(4)]
        assert [each.end() for each in alone] == [0] * 4, [each.said for each in alone]
        assert one.server.end() == 0, one.server.said
    server = Process([*TORCHRUN, *serve(path, "--devices", "4", "--out", str(tmp_path / "server"))])
    with ended(server):
        ports = {event["rank"]: event["port"] for event in (server.wait_for("listening"), server.wait_for("listening"))}
        # Neighbours in the order of the joint step are at different ranks.
        devices = [device(path, tmp_path, i, ports[i % 2]) for i in range(4)]
        with ended(*devices):
            assert [each.end() for each in devices] == [0] * 4, [each.said for each in devices]
            assert server.end() == 0, server.said
    joined = {event["device"]: event["rank"] for event in server.events if event["event"] == "joined"}
    assert joined == {f"board-{i}": i % 2 for i in range(4)}
    # The same loss curve: at first within rounding, of which codes and coded gradients make more later.
    for both in zip(alone, devices, strict=True):
        assert losses(both[1]) == pytest.approx(losses(both[0]), rel=0.02)
        assert losses(both[1])[0] == pytest.approx(losses(both[0])[0], rel=1e-3)
    tests = [[e["accuracy"] for e in each.events if e["event"] == "tested"] for each in (one.server, server)]
    assert len(tests[0]) == len(tests[1]) == 3 and tests[1] == pytest.approx(tests[0], abs=3)
    own = ("rank", "run", "time")
    told = [
        {key: value for key, value in each.last("ended").items() if key not in own} for each in (one.server, server)
    ]
    assert told[0] == told[1] and told[1]["repeatable"]
    # All end with one front half, and rank 0 kept it with the back half.
    kept = digests(tmp_path / "server")
    fronts = {name: kept[name] for name in ("front.safetensors", "tables.safetensors")}
    assert [digests(tmp_path / f"board-{i}") for i in range(4)] == [fronts] * 4 and "back.safetensors" in kept


def test_what_ranks_cannot_do_is_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    where = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
    at = {"MASTER_PORT": "1"}
    refused = {
        "take --mode sync, or start one server": (["--devices", "2", "--mode", "async"], at),
        "with --devices N": ([], at),
        "say --checkpoint 0, or start one server": (["--devices", "2", "--checkpoint", "60s"], at),
        "MASTER_PORT is not there: start several ranks with torchrun": (["--devices", "2"], {}),
    }
    for why, (words, more) in refused.items():
        process = Process(serve(small_bundle.path, "--out", str(tmp_path / "out"), *words), **where, **more)
        with ended(process):
            assert process.end() == 2 and any(why in line for line in process.said), process.said
    assert not (tmp_path / "out").exists(), "rank 0 alone keeps anything"


def test_a_killed_rank_ends_the_others_with_a_typed_error(small_bundle: Bundle, tmp_path: Path) -> None:
    path = small_bundle.path
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = serve(path, "--devices", "4", "--out", str(tmp_path / "server"))
    ranks = [Process(words, RANK=str(rank), LOCAL_RANK=str(rank), **where) for rank in range(2)]
    with ended(*ranks):
        ports = [rank.wait_for("listening")["port"] for rank in ranks]
        devices = [device(path, tmp_path, i, ports[i % 2], "--epochs", "2000") for i in range(4)]
        with ended(*devices):
            for each in devices:
                each.wait_for("epoch")
            killed = time.monotonic()
            ranks[1].process.send_signal(signal.SIGKILL)
            assert ranks[0].end() == TransportError.exit_code, ranks[0].said
            assert time.monotonic() - killed < 60
            assert any("rank 0 of 2 lost rank 1" in line for line in ranks[0].said), ranks[0].said
            assert ranks[0].last("ended") and (tmp_path / "server" / "back.safetensors").exists()
            assert all(each.end() == TransportError.exit_code for each in devices), [each.said for each in devices]

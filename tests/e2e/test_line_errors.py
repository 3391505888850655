"""What goes wrong on the line, with real processes: proxies, a server that comes late or is full, compressed bombs."""

import queue
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from edgekit import machine
from edgekit.bundle import Bundle
from edgekit.errors import Refused, TransportError
from edgekit.line import frame, messages
from edgekit.line.frame import MAX_FRAME, METHOD
from edgekit.line.messages import Hello
from tests.e2e.fleet import ENVIRONMENT, Fleet, fleet

#: Devices that a server takes when nothing is said of their number.
MOST = 64
SMALL = ("--epochs", "1", "--limit", "64")


@pytest.fixture
def served(small_bundle: Bundle, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(small_bundle.path, tmp_path) as made:
        yield made


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_device_trains_past_proxies(served: Fleet, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delitem(ENVIRONMENT, name, raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setitem(ENVIRONMENT, name, f"http://127.0.0.1:{closed_port}")
    assert (device := served.device("board", *SMALL)).end() == 0, device.said


def test_a_device_that_comes_first_trains(small_bundle: Bundle, tmp_path: Path, closed_port: int) -> None:
    with fleet(small_bundle.path, tmp_path) as made:
        device = made.device("early", *SMALL, "--wait", "300", port=closed_port)
        told = device.wait_for("waiting")
        assert told["server"] == f"127.0.0.1:{closed_port}" and told["seconds"] == 300
        assert told["reason"].startswith("nothing listens at that port: start `edgekit serve`")
        server = made.start("serve", "--listen", f"127.0.0.1:{closed_port}", "--devices", "1")
        assert device.end() == 0 and server.end() == 0, device.said
        assert [event["event"] for event in device.events].count("waiting") == 1


def test_a_device_gives_up(served: Fleet, closed_port: int) -> None:
    device = served.device("board", *SMALL, "--wait", "0", port=closed_port)
    assert device.end() == TransportError.exit_code and not [e for e in device.events if e["event"] == "waiting"]
    assert device.said[-1].startswith(f"error: no server answers at 127.0.0.1:{closed_port}: nothing listens")


def test_a_full_server_says_so(small_bundle: Bundle, served: Fleet) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        outboxes: list[queue.Queue[bytes | None]] = [queue.Queue() for _ in range(MOST)]
        held = [channel.stream_stream(METHOD)(iter(outbox.get, None)) for outbox in outboxes]
        for number, outbox in enumerate(outboxes):
            outbox.put(messages.encode(Hello(small_bundle.digest, f"held-{number}", 64, 2, 1, saves=True)))
            assert frame.decode(next(held[number])).kind == "welcome"
        device = served.device("one-more", *SMALL)
        assert device.end() == Refused.exit_code
        assert f"takes {MOST} devices at a time" in device.said[-1] and "--devices 65" in device.said[-1]
        for outbox in outboxes:
            outbox.put(None)
    # Those that held the places have left without a word; their places are free.
    assert (device := served.device("one-more", *SMALL)).end() == 0, device.said


def test_compressed_frames_take_no_memory(served: Fleet) -> None:
    """Six of 64 KB that would unfold to 64 MB each."""
    pid = served.server.process.pid
    try:
        machine.forget_peak(pid)
    except OSError as error:
        pytest.skip(f"the peak of a process's memory cannot be reset here: {error}")
    before = machine.usage(pid).peak_bytes or 0
    size = ("grpc.max_send_message_length", MAX_FRAME)
    with grpc.insecure_channel(
        f"127.0.0.1:{served.port}", options=[size], compression=grpc.Compression.Gzip
    ) as channel:
        calls = [channel.stream_stream(METHOD)(iter([bytes(64 << 20)])) for _ in range(6)]
        for call in calls:
            with pytest.raises(grpc.RpcError):
                list(call)
            assert call.code() is grpc.StatusCode.UNIMPLEMENTED
    grown = (machine.usage(pid).peak_bytes or 0) - before
    assert before and grown < 16 << 20, f"{grown >> 20} MiB"
    assert served.device("board", *SMALL).end() == 0

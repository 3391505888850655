"""The line from the device's side, over real sockets: how it begins, how slow it may be, and how it breaks."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from edgekit.errors import PayloadError, Refused, TransportError, UsageError
from edgekit.line import channel, messages
from edgekit.line.frame import MAX_FRAME, METHOD, Message, decode, encode
from edgekit.line.messages import Ack, Error, Ping, Pong
from edgekit.line.meter import Meter
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import parse_link
from edgekit.runtime import pace, reach, transport
from edgekit.runtime.transport import Grpc

Answer = Callable[[Message], Iterator[Message]]
#: What a refused port is told by.
NOTHING = "nothing listens at that port: start `edgekit serve` there, or correct the port"
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")


def pong(message: Message) -> Iterator[Message]:
    """The answer of a server to a ping, with as many bytes in it as the ping has."""
    told = messages.pack(Pong(message.step, 0.0, "b", "1", 0))
    yield told._replace(parts=message.parts)


@contextlib.contextmanager
def serving(answer: Answer, port: int = 0, **options: Any) -> Iterator[int]:
    """A server that gives every message its answer; its port."""
    _, name, method = METHOD.split("/")

    def stream(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for frame in frames:
            for message in answer(decode(frame)):
                yield encode(message)

    handler = grpc.stream_stream_rpc_method_handler(stream)
    sizes = [("grpc.max_receive_message_length", MAX_FRAME), ("grpc.max_send_message_length", MAX_FRAME)]
    server = grpc.server(ThreadPoolExecutor(2), options=sizes, **options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def line(port: int, **options: Any) -> Iterator[Grpc]:
    with contextlib.closing(Grpc(f"127.0.0.1:{port}", Meter(), **options)) as made:
        yield made


def ask(asked: Grpc, step: int = 1) -> Pong:
    asked.send(Ping(step))
    return asked.expect(Pong, step)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(pong) as port:
        with line(port) as asked:
            assert ask(asked).step == 1
        with grpc.insecure_channel(f"127.0.0.1:{port}") as other, pytest.raises(grpc.RpcError):
            next(other.stream_stream(METHOD)(iter([messages.encode(Ping(1))])))


def test_a_refused_port_is_told_at_once(closed_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(TransportError, match=f"no server answers at 127.0.0.1:{closed_port}: {NOTHING}"):
        Grpc(f"127.0.0.1:{closed_port}", Meter())
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("wait_s", [0.0, 60.0])
def test_an_unknown_host_is_told_at_once(wait_s: float) -> None:
    start = time.monotonic()
    with pytest.raises(TransportError, match=r"the host no-such-host\.invalid is unknown here .*mistake in its name"):
        Grpc("no-such-host.invalid:50051", Meter(), wait_s)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("address", ["http://127.0.0.1:50051", "127.0.0.1"])
def test_what_is_no_address_is_told_at_once(address: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        Grpc(address, Meter(), 60.0)


def test_a_host_without_a_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any) -> socket.socket:
        raise OSError(113, "No route to host")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert reach.why_not("127.0.0.1:1") == "there is no way to it (No route to host): look at network and address"


def test_a_host_that_says_nothing() -> None:
    """Its queue of connections is full, so that it answers no more."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as held:
        address = full.getsockname()
        for _ in range(4):
            taking = held.enter_context(socket.socket())
            taking.setblocking(False)
            taking.connect_ex(address)
        assert "no answer within 0.5 s: is the machine on" in reach.why_not(f"127.0.0.1:{address[1]}", 0.5)


def test_another_program_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ATTEMPT_S", 1.0)
    refused = pytest.raises(TransportError, match="does not answer as `edgekit serve` does: is it the right port")
    with socket.create_server(("127.0.0.1", 0)) as silent, refused:
        Grpc(f"127.0.0.1:{silent.getsockname()[1]}", Meter())


def test_another_service_of_grpc() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with line(port) as asked, pytest.raises(TransportError, match="speaks gRPC, but is no `edgekit serve`"):
        ask(asked)
    server.stop(0).wait()


def test_a_device_that_comes_first_finds_the_server(closed_port: int) -> None:
    told: list[str] = []
    come, done = threading.Event(), threading.Event()

    def serve_later() -> None:
        assert come.wait(300)
        time.sleep(2.0)
        with serving(pong, closed_port):
            assert done.wait(300)

    def waiting(reason: str) -> None:
        told.append(reason)
        come.set()

    server = threading.Thread(target=serve_later)
    server.start()
    try:
        with line(closed_port, wait_s=300.0, on_waiting=waiting) as asked:
            assert ask(asked).step == 1
    finally:
        done.set()
        server.join()
    assert told == [NOTHING]


def test_a_server_that_does_not_come(closed_port: int) -> None:
    told: list[str] = []
    start = time.monotonic()
    with pytest.raises(TransportError, match=rf"127.0.0.1:{closed_port}, tried for 2 s \(--wait\): {NOTHING}"):
        Grpc(f"127.0.0.1:{closed_port}", Meter(), 2.0, on_waiting=told.append)
    assert told == [NOTHING] and time.monotonic() - start >= 2


def test_the_reason_of_a_full_server_is_shown() -> None:
    def full(message: Message) -> Iterator[Message]:
        yield messages.pack(Error(0, 0, Refused.exit_code, "this server takes 2 devices at a time"))

    with serving(full) as port, line(port) as asked, pytest.raises(Refused, match="takes 2 devices at a time"):
        ask(asked)


def test_a_server_that_is_too_full_to_say_so() -> None:
    with serving(pong, maximum_concurrent_rpcs=1) as port, line(port) as first:
        assert ask(first).step == 1
        with line(port) as second, pytest.raises(Refused, match=r"127.0.0.1:\d+ is full: .*when a device has left"):
            ask(second)


def test_an_error_before_anything_was_asked() -> None:
    """As of a stream that said no hello in time."""

    def stream(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield messages.encode(Error(0, 0, Refused.exit_code, "no hello within 30 s"))

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {METHOD.split("/")[2]: grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD.split("/")[1], handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with line(port) as asked, pytest.raises(Refused, match="no hello within 30 s"):
        asked.expect(Ack)
    server.stop(0).wait()


def test_compressed_replies_are_not_unfolded() -> None:
    """A server could make a device unfold what fills its memory."""

    def large(message: Message) -> Iterator[Message]:
        yield message._replace(kind="pong", parts=(bytes(1 << 20),))

    refused = pytest.raises(PayloadError, match="not an edgekit frame")
    with serving(large, compression=grpc.Compression.Gzip) as port, line(port) as asked, refused:
        ask(asked)


def test_a_server_that_is_gone_is_looked_for_in_a_wait_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(transport, "LOOK_S", 0.1)
    monkeypatch.setattr(transport, "end_dead", looked.append)

    def slow(message: Message) -> Iterator[Message]:
        time.sleep(2.0)
        yield from pong(message)

    with serving(slow) as port, line(port, timeout_s=0.5) as asked:
        asked.send(Ping(1))
        assert asked.recv(patient=True).kind == "pong"
    assert set(looked) == {port}


@pytest.mark.parametrize("timeout_s", [None, 0.8])
def test_a_reply_that_does_not_come(timeout_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "TIMEOUT_S", 0.7)

    def silent(message: Message) -> Iterator[Message]:
        time.sleep(3.0)
        yield from pong(message)

    refused = pytest.raises(TransportError, match=r"no reply from .* for 1 s, 24 B under way.*--timeout")
    with serving(silent) as port, line(port, timeout_s=timeout_s) as asked, refused:
        ask(asked)


def test_a_slow_line_is_no_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three messages under way, each of 3 s each way, where a dead line is given up after 2 s."""
    monkeypatch.setattr(channel, "DEAD_S", 2.0)
    monkeypatch.setattr(channel, "IDLE_S", 1)
    monkeypatch.setattr(channel, "AGAIN_S", 1)
    monkeypatch.setattr(transport, "LOOK_S", 0.1)
    # So that the time which a reply may take follows from the line's rate.
    monkeypatch.setattr(pace, "TIMEOUT_S", 2.0)

    class Bulky(Grpc):
        def _send(self, data: bytes) -> None:
            super()._send(encode(decode(data)._replace(parts=(bytes(48_000),))))

    with (
        serving(pong) as port,
        LinkEmulator(parse_link("128kbit"), f"127.0.0.1:{port}") as link,
        contextlib.closing(Bulky(f"127.0.0.1:{link.port}", Meter())) as asked,
    ):
        start = time.monotonic()
        for step in range(3):
            asked.send(Ping(step))
        assert [asked.recv().step for _ in range(3)] == [0, 1, 2]
        assert time.monotonic() - start > 11

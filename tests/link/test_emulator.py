"""The emulated link over real sockets: what goes in comes out, whoever closes what when; and lax looks at the clock."""

import contextlib
import errno
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import TransportError, UsageError
from edgekit.link.emulator import LinkEmulator
from edgekit.link.link import Link, parse_link

FAST = parse_link("1gbit")
#: Long enough for any machine; nothing here waits for it unless it fails.
TIMEOUT_S = 300.0


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def line(link: Link, target: socket.socket) -> Iterator[tuple[LinkEmulator, socket.socket, socket.socket]]:
    """An emulated link and one connection over it: the near socket and the far one."""
    with LinkEmulator(link, address(target)) as emulator, connected(emulator, target) as (near, far):
        yield emulator, near, far


@contextlib.contextmanager
def connected(emulator: LinkEmulator, target: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=TIMEOUT_S) as near:
        far, _ = target.accept()
        with far:
            far.settimeout(TIMEOUT_S)
            yield near, far


def read_all(taken: socket.socket) -> bytes:
    parts = []
    while part := taken.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def read(taken: socket.socket, n: int) -> bytes:
    parts = b""
    while len(parts) < n and (part := taken.recv(n - len(parts))):
        parts += part
    return parts


def until(emulator: LinkEmulator, open: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while emulator.open != open and time.monotonic() < deadline:
        emulator.wait(0.01)
    assert emulator.open == open


class Sender(threading.Thread):
    """Sends `data` in chunks of the sizes given, again and again, then ends its direction."""

    def __init__(self, taken: socket.socket, data: bytes, sizes: list[int]) -> None:
        super().__init__()
        self._taken, self._data, self._sizes = taken, data, sizes
        self.start()

    def run(self) -> None:
        i = 0
        while self._data[i:]:
            for size in self._sizes:
                self._taken.sendall(self._data[i : i + size])
                i += size
        self._taken.shutdown(socket.SHUT_WR)


@given(
    st.integers(0, 200_000), st.integers(0, 200_000), st.lists(st.integers(1, 70_000), min_size=1, max_size=8),
    st.sampled_from(["10gbit", "200mbit/50mbit+2ms", "50mbit+jitter=2ms", "100mbit+stall=5ms@20ms"]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_bytes_arrive_as_they_were_sent_both_ways(n_up: int, n_down: int, sizes: list[int], text: str) -> None:
    up, down = random.Random(n_up).randbytes(n_up), random.Random(n_down).randbytes(n_down)
    with socket.create_server(("127.0.0.1", 0)) as target, line(parse_link(text), target) as (emulator, near, far):
        senders = Sender(near, up, sizes), Sender(far, down, sizes[::-1])
        answers: list[bytes] = []
        reader = threading.Thread(target=lambda: answers.append(read_all(near)))
        reader.start()
        assert read_all(far) == up
        reader.join()
        assert answers == [down]
        for sender in senders:
            sender.join()
        until(emulator, open=0)
        assert emulator.bytes == {"up": n_up, "down": n_down}
        assert (emulator.ended, emulator.unreachable) == (1, 0)


def test_one_side_ends_and_the_other_still_talks(target: socket.socket) -> None:
    with line(FAST, target) as (emulator, near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert read_all(far) == b"question"
        assert emulator.open == 1
        far.sendall(b"answer")
        assert read(near, 6) == b"answer"
        far.close()
        assert near.recv(1) == b""
        until(emulator, open=0)


@pytest.mark.parametrize("who", ["near", "far"])
def test_a_peer_that_breaks_off_closes_both_sides_and_no_others(target: socket.socket, who: str) -> None:
    with line(FAST, target) as (emulator, near, far), connected(emulator, target) as (other_near, other_far):
        gone, left = (near, far) if who == "near" else (far, near)
        gone.sendall(b"last words")
        # Closing now resets the connection.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.05)
        gone.close()
        with contextlib.suppress(ConnectionError):
            assert read_all(left) in (b"last words", b"")
        until(emulator, open=1)
        other_near.sendall(b"still here")
        assert read(other_far, 10) == b"still here"


def test_a_target_that_is_not_there_closes_the_connection_and_may_come_later(target: socket.socket) -> None:
    there = address(target)
    target.close()
    with LinkEmulator(FAST, there) as emulator:
        for i in range(3):
            with socket.create_connection(("127.0.0.1", emulator.port), timeout=TIMEOUT_S) as near:
                with contextlib.suppress(ConnectionError):
                    assert near.recv(1) == b""
                until(emulator, open=0)
            assert (emulator.ended, emulator.unreachable) == (0, i + 1)
        host, port = there.split(":")
        with socket.create_server((host, int(port))) as back:
            back.settimeout(TIMEOUT_S)
            with connected(emulator, back) as (near, far):
                near.sendall(b"x")
                assert read(far, 1) == b"x"


def test_many_connections_at_once(target: socket.socket) -> None:
    """All of them wait for their turns on a line that none of them has for itself."""
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(LinkEmulator(parse_link("100mbit+5ms"), address(target)))
        pairs = [stack.enter_context(connected(emulator, target)) for _ in range(40)]
        assert emulator.open == 40
        sent = [bytes([i]) * 20_000 for i in range(40)]
        senders = [Sender(near, data, [7000]) for (near, _), data in zip(pairs, sent, strict=True)]
        assert [read_all(far) for _, far in pairs] == sent
        for sender in senders:
            sender.join()
        for near, far in pairs:
            near.close()
            far.close()
        until(emulator, open=0)
        assert emulator.ended == 40 and emulator.bytes == {"up": 800_000, "down": 0}


def test_a_slow_reader_holds_its_own_sender_and_nobody_else(target: socket.socket) -> None:
    with line(FAST, target) as (emulator, near, far), connected(emulator, target) as (other_near, other_far):
        near.settimeout(0.2)
        sent = 0
        # Until the buffers of kernel and line are full; the line's are for 50 ms.
        with pytest.raises(TimeoutError):
            while sent < 1 << 28:
                sent += near.send(bytes(1 << 20))
        near.settimeout(TIMEOUT_S)
        other_near.sendall(b"past it")
        assert read(other_far, 7) == b"past it"
        near.shutdown(socket.SHUT_WR)
        assert len(read_all(far)) == sent


def test_what_ends_the_emulation_is_told(target: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(family: int, buffer: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    broken = pytest.raises(TransportError, match=r"the emulated link broke: .*Too many open files")
    with broken, LinkEmulator(FAST, address(target)) as emulator:
        monkeypatch.setattr("edgekit.link.connections.stream_socket", no_more)
        with socket.create_connection(("127.0.0.1", emulator.port), timeout=TIMEOUT_S) as near:
            with contextlib.suppress(ConnectionError):
                assert near.recv(1) == b""
            emulator.wait(TIMEOUT_S)


def test_closing_with_bytes_on_the_way(target: socket.socket) -> None:
    with LinkEmulator(parse_link("10kbit+1s"), address(target)) as emulator, connected(emulator, target) as (near, far):
        near.sendall(bytes(100_000))
        emulator.close()
        with contextlib.suppress(ConnectionError):
            assert far.recv(1) == b""
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", emulator.port), timeout=TIMEOUT_S)


@pytest.mark.parametrize("text", ["1mbit+100ms", "1mbit/4mbit", "1mbit+stall=100ms@300ms"])
def test_it_takes_the_time_it_should(target: socket.socket, text: str) -> None:
    """Never less; how much more is up to the machine. bench/link.py measures it."""
    link = parse_link(text)
    with line(link, target) as (_, near, far):
        start = time.monotonic()
        near.sendall(bytes(50_000))
        read(far, 50_000)
        up_s = time.monotonic() - start
        far.sendall(bytes(50_000))
        read(near, 50_000)
        both_s = time.monotonic() - start
    floor = [8 * 50_000 / rate + link.round_trip_s / 2 for rate in link[:2]]
    assert floor[0] - 0.002 < up_s < 4 * floor[0] + 1
    assert sum(floor) - 0.004 < both_s < 4 * sum(floor) + 2


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ({"target": "nowhere"}, UsageError, "expected HOST:PORT"),
        ({"target": "127.0.0.1:99999"}, UsageError, "expected HOST:PORT"),
        ({"listen": "127.0.0.1"}, UsageError, "expected HOST:PORT"),
        ({"target": "no.such.host.invalid:1"}, TransportError, r"cannot find no\.such\.host\.invalid:1"),
        ({"listen": "192.0.2.1:0"}, TransportError, r"cannot listen at 192\.0\.2\.1:0"),
    ],
)
def test_addresses_that_make_no_sense(where: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LinkEmulator(FAST, **{"target": "127.0.0.1:1", **where})


def test_a_port_that_is_taken(target: socket.socket) -> None:
    with pytest.raises(TransportError, match="choose another HOST:PORT"):
        LinkEmulator(FAST, "127.0.0.1:1", address(target))

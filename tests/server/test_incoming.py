"""Frames that are read before their turn."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from edgekit.server.incoming import Incoming
from tests.server.lines import wait_until


def test_one_frame_is_read_ahead_and_no_more() -> None:
    read = []

    def frames() -> Iterator[bytes]:
        for frame in (b"a", b"b", b"c"):
            read.append(frame)
            yield frame

    incoming = Incoming(frames())
    wait_until(lambda: incoming.waiting() == b"a")
    assert incoming.waiting() == b"a" and read == [b"a"], "looking takes nothing"
    assert incoming.take() == b"a"
    wait_until(lambda: incoming.waiting() == b"b")
    assert read == [b"a", b"b"]
    assert [incoming.take() for _ in range(4)] == [b"b", b"c", None, None] and incoming.waiting() is None


def test_a_frame_that_does_not_come() -> None:
    over = threading.Event()

    def frames() -> Iterator[bytes]:
        over.wait(60)
        yield b"late"

    incoming = Incoming(frames())
    with pytest.raises(TimeoutError):
        incoming.take(0.01)
    assert incoming.waiting() is None
    over.set()
    assert incoming.take(60) == b"late" and incoming.take() is None


def test_a_cut_comes_after_what_was_read() -> None:
    cut = grpc.RpcError()

    def frames() -> Iterator[bytes]:
        yield b"whole"
        raise cut

    incoming = Incoming(frames())
    assert incoming.take() == b"whole"
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            incoming.take()
        assert caught.value is cut


def test_closing_lets_the_thread_end() -> None:
    before = threading.active_count()
    incoming = Incoming(iter([b"a", b"b"]))
    wait_until(lambda: incoming.waiting() == b"a")
    assert threading.active_count() == before + 1
    incoming.close()
    wait_until(lambda: threading.active_count() == before)

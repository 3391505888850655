from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import Refused
from edgekit.line.frame import Message, decode, encode
from edgekit.line.joining import Bye, Hello, Welcome
from edgekit.line.messages import Ack
from edgekit.line.messages import encode as encoded
from edgekit.server.observe.traffic import UNKNOWN, Traffic, Volume, kind_of
from edgekit.server.service import error_message

HELLO, BYE, ACK = encoded(Hello("b", "board", 2, 1, 1)), encoded(Bye(7)), encoded(Ack(7))
WELCOME = encoded(Welcome(7, 1, "raw", {}, False, "sgd", 0.9, 0.0, b"", b""))


def told(traffic: Traffic) -> dict[tuple[str, str], tuple[int, int]]:
    return {(each["direction"], each["kind"]): (each["frames"], each["bytes"]) for each in traffic.told()["messages"]}


def test_frames_count_by_direction_and_kind_and_the_hello_is_the_devices() -> None:
    traffic, volume = Traffic(), Volume()

    def answers(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        assert context == "context"
        assert decode(next(frames)).kind == "hello"
        # As on_event tells of it: before the answer goes.
        traffic.begin(7, volume)
        yield WELCOME
        assert decode(next(frames)).kind == "bye"
        traffic.end(7)
        yield ACK

    passed = list(traffic.counted(answers)(iter([HELLO, BYE]), "context"))
    assert passed == [WELCOME, ACK]
    assert told(traffic) == {
        ("up", "hello"): (1, len(HELLO)), ("up", "bye"): (1, len(BYE)),
        ("down", "welcome"): (1, len(WELCOME)), ("down", "ack"): (1, len(ACK)),
    }  # fmt: skip
    assert (volume.up, volume.down) == (len(HELLO) + len(BYE), len(WELCOME) + len(ACK))
    assert volume.heard > 0


def test_a_stream_that_ends_lets_its_answers_end() -> None:
    ended = []

    def answers(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            yield from frames
        finally:
            ended.append(True)

    passed = Traffic().counted(answers)(iter([HELLO, BYE]), None)
    assert next(passed) == HELLO
    del passed
    assert ended


def test_errors_count_by_the_exit_code_of_their_class() -> None:
    traffic = Traffic()
    error = encode(error_message(Refused("no"), 0, 0))
    list(traffic.counted(lambda frames, context: iter([error, error, ACK]))(iter([]), None))
    assert traffic.told()["errors"] == {str(Refused.exit_code): 2}


@given(st.binary(max_size=40))
def test_any_bytes_count_and_none_are_an_error(frame: bytes) -> None:
    traffic = Traffic()
    volume = Volume()
    traffic.count("up", frame, volume)
    assert told(traffic) == {("up", kind_of(frame)): (1, len(frame))} and volume.up == len(frame)


def test_a_kind_that_there_is_not_is_unknown() -> None:
    frame = bytearray(encode(Message("ping")))
    assert kind_of(bytes(frame)) == "ping"
    frame[4] = 200
    assert kind_of(bytes(frame)) == kind_of(b"EKW") == kind_of(b"") == UNKNOWN


def test_a_session_that_has_ended_has_no_volume() -> None:
    traffic, mine = Traffic(), Volume(up=3)
    assert traffic.volume(1, mine) is mine
    known = Volume(up=1)
    traffic.begin(1, known)
    assert traffic.volume(1, mine) is known and known.up == 4

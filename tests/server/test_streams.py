"""What becomes of streams: silent ones, one too many, those of two sessions, and those that end."""

import os
import time
from collections.abc import Callable

import grpc
import pytest

from edgekit.errors import Refused
from edgekit.line.frame import Message, encode
from edgekit.server import streams
from edgekit.server.listen import Listener
from edgekit.server.service import Service
from tests.server.lines import HELLO, OTHER, Line, feature, wait_until

OpenLine = Callable[[], Line]


def refusal(message: Message) -> str:
    assert message.kind == "error" and message.header["code"] == Refused.exit_code, message
    return str(message.header["message"])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HELLO_S", 1.0)


def test_one_device_too_many_is_told_how_many_there_may_be(line: OpenLine) -> None:
    first, second = line(), line()
    assert first.ask(HELLO).kind == second.ask(OTHER).kind == "welcome"
    third = line()
    told = refusal(third.ask(HELLO))
    assert "takes 2 devices at a time" in told and "--devices 3" in told and third.ended()
    assert first.ask(Message("bye", 1)).kind == "ack" and first.ended()
    wait_until(lambda: line().ask(Message("ping")).kind == "pong")


def test_devices_that_are_away_keep_their_places(service: Service, line: OpenLine) -> None:
    """Else whoever says hello under ever new names, and hangs up, fills the memory."""
    service._lines.away_s = 300.0
    for name in ("board", "other"):
        device = line()
        told = HELLO._replace(header={**HELLO.header, "device": name, "window": 4})
        assert device.ask(told).kind == "welcome"
        device.say(None)
        assert device.ended()
    wait_until(lambda: len(service._lines.away()) == 2)
    third = HELLO._replace(header={**HELLO.header, "device": "third"})
    assert "keeps places for those whose lines broke" in refusal(line().ask(third))
    assert line().ask(HELLO).kind == "welcome", "who was started anew takes its own place"


def test_far_too_many_are_refused_without_words(line: OpenLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are told why take threads, too; the rest gets gRPC's own refusal, which a device knows."""
    held = [line() for _ in range(2)]
    assert all(each.ask(Message("ping")).kind == "pong" for each in held)
    codes = set()
    for each in [line() for _ in range(40)]:
        try:
            assert "2 devices" in refusal(each.ask(HELLO))
        except grpc.RpcError as error:
            codes.add(error.code())
    assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert held[0].ask(HELLO).kind == "welcome"


@pytest.mark.usefixtures("quick")
def test_silent_streams_lock_nobody_out(line: OpenLine) -> None:
    silent = [line(), line()]
    for each in silent:
        assert "no hello within 1 s" in refusal(each.told()) and each.ended()
    wait_until(lambda: line().ask(Message("ping")).kind == "pong")


@pytest.mark.usefixtures("quick")
def test_pings_are_no_hello(line: OpenLine) -> None:
    doctor = line()
    answers: list[Message] = []
    while not answers or answers[-1].kind == "pong":
        answers.append(doctor.ask(Message("ping")))
        time.sleep(0.05)
    assert len(answers) > 2 and "no hello" in refusal(answers[-1]) and doctor.ended()


@pytest.mark.usefixtures("quick")
def test_a_session_may_be_silent(line: OpenLine) -> None:
    device = line()
    session = device.ask(HELLO).session
    time.sleep(2.0)
    assert device.ask(feature(session, 0)).kind == "gradient"


def test_a_stream_that_ends_in_silence_ends_at_once(line: OpenLine) -> None:
    device = line()
    device.say(None)
    start = time.monotonic()
    assert device.ended() and time.monotonic() - start < streams.HELLO_S


def test_one_stream_is_one_session(service: Service, line: OpenLine) -> None:
    device, other = line(), line()
    session = device.ask(HELLO).session
    assert other.ask(HELLO._replace(header={**HELLO.header, "device": "third"})).kind == "welcome"
    assert f"has session {session}" in refusal(device.ask(OTHER)) and device.ended()
    wait_until(lambda: service.fleet.lost == {"board"})
    assert other.ask(feature(2, 0)).kind == "gradient"


def test_a_refused_hello_ends_the_stream(line: OpenLine) -> None:
    device = line()
    assert "bundle" in refusal(device.ask(HELLO._replace(header={**HELLO.header, "bundle": "other"})))
    assert device.ended()


def test_a_message_of_another_stream_s_session_is_refused(service: Service, line: OpenLine) -> None:
    device, other = line(), line()
    assert device.ask(HELLO).session == 1
    assert "no session 1 on this stream" in refusal(other.ask(feature(1, 0))) and other.ended()
    assert device.ask(feature(1, 0)).kind == "gradient", "the step was not taken"
    assert not service.fleet.lost


def test_streams_leave_no_files_open(listener: Listener) -> None:

    def talk() -> None:
        device = Line(listener.port)
        assert device.ask(Message("ping")).kind == "pong"
        device.close()

    talk()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        talk()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_refused(listener: Listener, algorithm: grpc.Compression) -> None:
    device = Line(listener.port, compression=algorithm)
    device.say(encode(Message("ping", parts=(bytes(1 << 20),))))
    with pytest.raises(grpc.RpcError) as caught:
        device.told()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    device.close()

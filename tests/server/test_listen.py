import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import edgekit
from edgekit.codecs.features.raw import Raw
from edgekit.errors import TransportError, UsageError
from edgekit.line.frame import Message, decode, encode
from edgekit.server import listen
from edgekit.server.listen import Listener, serve
from edgekit.server.service import Service
from tests.server.lines import FEATURE, HELLO, OTHER, Line, feature, wait_until


def test_a_device_joins_trains_and_leaves(service: Service, line: Callable[[], Line]) -> None:
    device = line()
    session = device.ask(HELLO).session
    assert session == 1
    replies = [device.ask(feature(session, step)) for step in range(3)]
    assert [(reply.kind, reply.step) for reply in replies] == [("gradient", 0), ("gradient", 1), ("gradient", 2)]
    assert Raw().unpack(replies[0].parts[0], FEATURE.shape)["codes"].any()
    assert device.ask(Message("bye", session)).kind == "ack"
    assert device.ended()
    assert (service.fleet.finished, service.fleet.lost) == ({"board"}, set())


def test_replies_come_in_the_order_of_frames_sent_ahead(line: Callable[[], Line]) -> None:
    device = line()
    session = device.ask(HELLO).session
    for step in range(8):
        device.say(encode(feature(session, step)))
    assert [decode(next(device.replies)).step for _ in range(8)] == list(range(8))


def test_a_refusal_keeps_the_session(line: Callable[[], Line]) -> None:
    device = line()
    session = device.ask(HELLO).session
    assert device.ask(feature(session, 7)).kind == "error"
    assert device.ask(feature(session, 0)).kind == "gradient"


def test_a_damaged_frame_is_answered_and_ends_the_stream(service: Service, line: Callable[[], Line]) -> None:
    device = line()
    assert device.ask(HELLO).kind == "welcome"
    frame = bytearray(encode(feature(1, 0)))
    frame[-1] ^= 1
    device.say(bytes(frame))
    reply = decode(next(device.replies))
    assert reply.kind == "error" and reply.header["code"] == 7 and "checksum" in reply.header["message"]
    with pytest.raises(StopIteration):
        next(device.replies)
    wait_until(lambda: service.fleet.lost == {"board"})


@pytest.mark.parametrize("how", ["cancel", "end"])
def test_a_line_that_breaks_without_bye_loses_the_session(service: Service, line: Callable[[], Line], how: str) -> None:
    device, other = line(), line()
    assert device.ask(HELLO).kind == other.ask(OTHER).kind == "welcome"
    if how == "cancel":
        device.replies.cancel()
    else:
        device.say(None)
    wait_until(lambda: service.fleet.lost == {"board"})
    assert other.ask(feature(2, 0)).kind == "gradient"
    assert not service.fleet.finished


def test_a_ping_joins_nothing_and_its_end_loses_nothing(service: Service, line: Callable[[], Line]) -> None:
    events: list[dict[str, Any]] = []
    service.on_event = events.append
    doctor, device = line(), line()
    before = time.time()
    reply = doctor.ask(Message("ping", step=7))
    assert (reply.kind, reply.session, reply.step) == ("pong", 0, 7)
    assert before <= reply.header.pop("time") <= time.time()
    assert reply.header == {"bundle": "b", "version": edgekit.__version__, "devices": 0}
    assert device.ask(HELLO).session == 1
    assert doctor.ask(Message("ping")).header["devices"] == 1
    doctor.say(None)
    with pytest.raises(StopIteration):
        next(doctor.replies)
    assert device.ask(Message("bye", 1)).kind == "ack"
    assert [event["event"] for event in events] == ["joined", "left"]
    assert (service.fleet.finished, service.fleet.lost) == ({"board"}, set())


def test_a_ping_does_not_wait_for_a_step_of_training(service: Service) -> None:
    with service._lock:
        assert service.handle(Message("ping")).kind == "pong"


def test_a_taken_port_is_a_transport_error(service: Service, listener: Listener) -> None:
    with pytest.raises(TransportError, match=rf"cannot listen at 127\.0\.0\.1:{listener.port}: .*--listen"):
        serve(service, f"127.0.0.1:{listener.port}", 1)


def test_an_address_of_another_machine_is_a_transport_error(service: Service) -> None:
    with pytest.raises(TransportError, match=r"cannot listen at 192\.0\.2\.1:8080"):
        serve(service, "192.0.2.1:8080", 1)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "127.0.0.1:", "127.0.0.1:-1", ":80", ""])
def test_an_address_that_is_none_is_a_usage_error(service: Service, address: str) -> None:
    with pytest.raises(UsageError, match=f"HOST:PORT.*'{address}'"):
        serve(service, address, 1)


def test_the_bound_port_is_reported_and_free_again_after_stop(service: Service) -> None:
    ports: list[int] = []
    listener = serve(service, "127.0.0.1:0", 1, ports.append)
    assert ports == [listener.port] and listener.port > 0
    listener.stop(0)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", listener.port))


def test_stop_breaks_open_streams(service: Service) -> None:
    listener = serve(service, "127.0.0.1:0", 1)
    device = Line(listener.port)
    assert device.ask(HELLO).kind == "welcome"
    stopping = threading.Thread(target=listener.stop, args=(0.1,))
    stopping.start()
    with pytest.raises(grpc.RpcError):
        next(device.replies)
    stopping.join(300)
    assert not stopping.is_alive()
    wait_until(lambda: service.fleet.lost == {"board"})
    device.close()


def test_devices_that_are_gone_are_looked_for_until_the_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(listen, "LOOK_S", 0.01)
    monkeypatch.setattr(listen, "end_dead", looked.append)
    listener = serve(service, "127.0.0.1:0", 1)
    wait_until(lambda: len(looked) > 3)
    listener.stop(0)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "dead lines"])
    assert set(looked) == {listener.port}

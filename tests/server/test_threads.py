"""What the devices' threads do side by side, and what one session's messages may not."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edgekit.codecs.features.sgq import SGQ
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.server.calibrate import Calibrator
from edgekit.server.service import Service
from edgekit.server.train import BackHalf
from tests.server.talk import feature, hello, refusal


class Count:
    """Counts what is done; `wait` returns when it was done so often, and fails after a minute."""

    def __init__(self) -> None:
        self._done, self._more = 0, threading.Condition()

    def add(self) -> None:
        with self._more:
            self._done += 1
            self._more.notify_all()

    def wait(self, times: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self._done >= times, 60)


def test_one_device_is_coded_while_another_trains(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step waits for both features to be decoded, the first gradient for the second step to begin."""
    service, decoded, stepped = make(), Count(), Count()
    sessions = [hello(service) for _ in range(2)]
    unpack, send, step = SGQ.unpack, Calibrator.send, BackHalf.step

    def counted_unpack(*given: Any) -> Any:
        codes = unpack(*given)
        decoded.add()
        return codes

    def late_step(*given: Any) -> Any:
        stepped.add()
        decoded.wait(2)
        return step(*given)

    def late_send(*given: Any) -> Any:
        stepped.wait(2)
        return send(*given)

    monkeypatch.setattr(SGQ, "unpack", counted_unpack)
    monkeypatch.setattr(BackHalf, "step", late_step)
    monkeypatch.setattr(Calibrator, "send", late_send)
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda session: service.handle(feature(session, 0)), sessions))
    assert [reply.kind for reply in replies] == ["gradient", "gradient"]


def test_a_session_is_busy_until_its_reply_is_there(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, begun, go_on = make(), threading.Event(), threading.Event()
    session = hello(service)
    send = Calibrator.send

    def slow(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return send(*given)

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patched:
        patched.setattr(Calibrator, "send", slow)
        first = pool.submit(service.handle, feature(session, 0))
        assert begun.wait(60)
        told = f"a message of session {session} still waits for its answer"
        assert told in refusal(service, feature(session, 1)) and told in refusal(service, feature(session, 0))
        go_on.set()
        assert first.result(60).kind == "gradient"
    assert service.handle(feature(session, 1)).kind == "gradient"


def test_a_session_may_end_while_its_bye_is_read(make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line breaks, and the server ends it first."""
    service = make()
    session, parse = hello(service), messages.parse

    def parse_late(message: Message) -> Any:
        service.end(session)
        return parse(message)

    monkeypatch.setattr(messages, "parse", parse_late)
    assert service.handle(Message("bye", session)).kind == "ack"
    assert not service.fleet.sessions

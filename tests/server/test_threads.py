"""What the devices' threads do side by side, and what one session's messages may not."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edgekit.codecs.features.sgq import SGQ
from edgekit.server.calibrate import Calibrator
from edgekit.server.service import Service
from tests.server.talk import feature, hello, refusal


@pytest.mark.parametrize("coding", [(SGQ, "unpack"), (Calibrator, "send")])
def test_two_devices_are_coded_at_once(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, coding: tuple[type, str]
) -> None:
    """Each device's coding waits for the other's to begin: under one lock none would end."""
    service, both = make(), threading.Barrier(2, timeout=60)
    sessions = [hello(service) for _ in range(2)]
    code = getattr(*coding)

    def together(*given: Any) -> Any:
        both.wait()
        return code(*given)

    monkeypatch.setattr(*coding, together)
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda session: service.handle(feature(session, 0)), sessions))
    assert [reply.kind for reply in replies] == ["gradient", "gradient"]


def test_a_session_is_busy_until_its_reply_is_there(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, begun, go_on = make(), threading.Event(), threading.Event()
    session, other = hello(service), hello(service)
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
        assert service.handle(feature(other, 0, kind="evaluate")).kind == "result", "others are answered meanwhile"
        go_on.set()
        assert first.result(60).kind == "gradient"
    assert service.handle(feature(session, 1)).kind == "gradient"

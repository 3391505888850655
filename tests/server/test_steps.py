"""Batches that wait for their step while the gradient of the one before is coded."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgekit.errors import Quarantined
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import Resume, Welcome
from edgekit.server.door import Anybody
from edgekit.server.incoming import Incoming
from edgekit.server.policy import Patience
from edgekit.server.service import Service
from edgekit.server.streams import Line
from tests.server.talk import feature, greeting, hello

#: A step waits for all devices, and one whose line breaks may come back.
TOGETHER = Patience(step_s=300.0, away_s=300.0)


def said(reply: Message) -> tuple[object, ...]:
    """`reply` without the seconds that it took."""
    return reply.kind, reply.step, {**reply.header, "s": 0}, reply.parts


def test_answers_are_the_same(make: Callable[..., Service]) -> None:
    replies = []
    for ahead in (False, True):
        service = make()
        session = hello(service, "board")
        sent = [feature(session, step) for step in range(4)]
        following = iter([*sent[1:], None] if ahead else [None] * 4)
        replies.append([said(service.handle(message, following=following.__next__)) for message in sent])
        assert service.fleet.steps == 4
    assert replies[0] == replies[1]


def test_what_is_wrong_with_the_next_batch_is_said_in_its_turn(make: Callable[..., Service]) -> None:
    service = make()
    session = hello(service)
    wrong = feature(session, 5)
    assert service.handle(feature(session, 0), following=lambda: wrong).kind == "gradient"
    assert "got step 5, expected step 1" in str(service.handle(wrong).header["message"])
    assert service.handle(feature(session, 1)).kind == "gradient"


@pytest.mark.parametrize("made", [False, True], ids=["before its step", "after its step"])
def test_the_line_breaks_while_a_batch_waits(made: bool, make: Callable[..., Service]) -> None:
    """Whether the step was made or not: every batch is learned from once, and every gradient arrives."""
    service = Service(make().setup, patience=TOGETHER)
    welcomes = [messages.parse(service.handle(greeting(service, name, window=4))) for name in ("a", "b")]
    assert all(isinstance(each, Welcome) for each in welcomes)
    (a, token), (b, _) = ((each.session, each.token) for each in welcomes if isinstance(each, Welcome))
    service.use(a, "old")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(service.handle, feature(b, 0))
        first = service.handle(feature(a, 0), following=lambda: feature(a, 1))
        assert first.kind == other.result(300).kind == "gradient" and service.fleet.steps == 1
        if made:
            assert service.handle(feature(b, 1)).kind == "gradient" and service.fleet.steps == 2
        service.broke(a, "old")
        resumed, *lost = service.resume(messages.pack(Resume(a, 1, token)), "new")
        assert (resumed.kind, resumed.step) == ("resumed", 2 if made else 1)
        assert [(each.kind, each.step) for each in lost] == ([("gradient", 1)] if made else [])
        for step in (2,) if made else (1, 2):
            other = pool.submit(service.handle, feature(b, step))
            assert service.handle(feature(a, step)).kind == other.result(300).kind == "gradient"
    assert service.fleet.steps == 3


class Held:
    """A stream of gRPC's that holds."""

    def is_active(self) -> bool:
        return True


def test_what_ends_a_session_while_its_next_batch_waits_is_told(make: Callable[..., Service]) -> None:
    """Another device's thread makes the step and finds this one odd, while its gradient before that is coded."""
    service = Service(make().setup, patience=TOGETHER)
    line = Line(service, Anybody(Held()), Incoming(iter(())))
    ((_, welcome),) = line.answers(greeting(service, "a", window=4))
    session = service.fleet.sessions[welcome.session]
    sent = feature(session.number, 1)
    assert service.handle(feature(session.number, 0), following=lambda: sent).kind == "gradient"
    assert line.unsaid() == []
    session.ahead.ticket.error = Quarantined("a is in quarantine: noise")
    with service._lock:
        service._run.end(session, finished=False)
    ((number, told),) = line.unsaid()
    assert (number, told.kind, told.step, told.header["code"]) == (1, "error", 1, Quarantined.exit_code)


def test_a_line_that_another_took_over_settles_nothing(make: Callable[..., Service]) -> None:
    service = Service(make().setup, patience=TOGETHER)
    (a, token), _ = (
        (reply.session, str(reply.header["token"]))
        for reply in (service.handle(greeting(service, name, window=4)) for name in ("a", "b"))
    )
    service.use(a, "old")
    service.resume(messages.pack(Resume(a, 0, token)), "new")
    waits = service.fleet.sessions[a].ahead = object()
    service.broke(a, "old")
    assert service.fleet.sessions[a].ahead is waits

"""Checkpoints at the server: who is asked, what is taken for a save, and who can make a run go back."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from edgekit.errors import Refused
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import NO_LIFE, Ack, Bye, Hello, Resume, Saved, Welcome
from edgekit.saves import Saves
from edgekit.server.checkpoints import Checkpoints
from edgekit.server.policy import Every, Patience
from edgekit.server.service import Service
from tests.server.talk import feature, refusal

PATIENT = Patience(away_s=60.0, step_s=60.0, step_quorum=1.0)


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def service(make: Callable[..., Service], told: list[dict[str, Any]]) -> Service:
    checkpoints = Checkpoints(Saves(None, "server"), Every(steps=2), {})
    return Service(make().setup, told.append, PATIENT, checkpoints=checkpoints)


def joined(service: Service, name: str, **more: Any) -> Welcome:
    given: dict[str, Any] = {"window": 4, "saves": True, **more}
    reply = service.handle(messages.pack(Hello(service.setup.digest, name, 100, 100, 1, **given)))
    parsed = messages.parse(reply)
    assert isinstance(parsed, Welcome), reply
    return parsed


def labels(told: list[dict[str, Any]]) -> list[int]:
    return [event["label"] for event in told if event["event"] == "checkpoint"]


def test_all_save_when_one_comes_every_so_many_steps_and_when_one_goes(
    service: Service, told: list[dict[str, Any]]
) -> None:
    welcome = joined(service, "a")
    assert welcome.save == 1 and service.handle(messages.pack(Saved(welcome.session, 1))).step == 1
    asked = []
    for step in range(4):
        gradient = messages.parse(service.handle(feature(welcome.session, step)))
        asked.append(gradient.save)  # type: ignore[union-attr]
        if asked[-1]:
            assert messages.parse(service.handle(messages.pack(Saved(welcome.session, asked[-1])))) == Ack(
                welcome.session, asked[-1]
            )
    assert asked == [0, 2, 0, 3]
    assert messages.parse(service.handle(messages.pack(Bye(welcome.session)))) == Ack(welcome.session, 4)
    assert labels(told) == [1, 2, 3, 4]


def test_one_that_a_device_could_not_save_is_given_up(service: Service, told: list[dict[str, Any]]) -> None:
    welcome = joined(service, "a")
    assert service.handle(messages.pack(Saved(welcome.session, 1, done=False))).step == 0
    # One that comes too late is not taken for that of the next.
    service.handle(feature(welcome.session, 0))
    assert messages.parse(service.handle(feature(welcome.session, 1))).save == 2  # type: ignore[union-attr]
    assert service.handle(messages.pack(Saved(welcome.session, 1))).step == 0
    assert service.handle(messages.pack(Saved(welcome.session, 2))).step == 2
    assert labels(told) == [0, 2]


def test_a_save_that_nobody_asked_for_and_a_device_that_knows_of_none(
    make: Callable[..., Service], service: Service
) -> None:
    without = make()
    session = joined(without, "a").session
    refusal(without, messages.pack(Saved(session, 1)), Refused.exit_code)
    hello = messages.pack(Hello(service.setup.digest, "a", 100, 100, 1, window=4))
    assert "--checkpoint 0" in refusal(service, hello, Refused.exit_code)


@pytest.mark.parametrize("token", ["", "-", "0123456789abcdef"])
def test_nobody_makes_a_run_go_back_without_a_sessions_token(
    service: Service, told: list[dict[str, Any]], token: str
) -> None:
    known = joined(service, "a")
    service.handle(messages.pack(Saved(known.session, 1)))
    for session in (known.session, 7):
        (reply,) = service.resume(messages.pack(Resume(session, 0, token, NO_LIFE)), object())
        assert reply.kind == "error"
    assert not any(event["event"] == "went_back" for event in told)
    back, *_ = service.resume(messages.pack(Resume(known.session, 0, known.token, NO_LIFE)), object())
    assert back.header["back"] == 1 and [event["event"] for event in told][-2:] == ["went_back", "back"]


def test_a_device_may_be_called_anything(service: Service) -> None:
    for name in ("array", "a.b", secrets.token_hex(16)):
        welcome = joined(service, name)
        assert service.handle(messages.pack(Saved(welcome.session, welcome.save))).step == welcome.save
        assert service.handle(Message("bye", welcome.session)).kind == "ack"

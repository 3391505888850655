"""Two ranks in threads against one server with all devices: what devices are answered, and what they are told."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from edgekit.codecs.features.raw import Raw
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.errors import EdgekitError, Quarantined, Refused, TransportError
from edgekit.line import messages
from edgekit.line.messages import Bye, Evaluate, Feature, Hello, Update
from edgekit.server.policy import Every, Patience, RoundPolicy
from edgekit.server.ranks.back import JointBackHalf
from edgekit.server.ranks.run import JointRun
from edgekit.server.service import Service
from edgekit.server.watch import Watch
from tests.server.ranks.together import LIMIT_S, ThreadGroup, at_once, groups
from tests.server.talk import SGD

CODEC = Raw()
ROUNDS = RoundPolicy(Every(epochs=1), FedAvg())
FRONT = {"w": np.arange(6, dtype=np.float32)}
NAMES = ("a", "b", "c", "d")
EPOCHS, STEPS, BATCH = 3, 2, 6


class Served:
    """A service, its events, and for a rank the run's thread."""

    def __init__(self, make: Callable[..., Service], group: ThreadGroup | None = None, devices: int = 4) -> None:
        setup = make(CODEC, {}, "none", "cosine").setup._replace(front=FRONT, learned=("w",))
        self.events: list[dict[str, Any]] = []
        self.over = threading.Event()
        self.runs: list[JointRun] = []
        given: dict[str, Any] = {}
        if group is not None:
            setup = setup._replace(back=JointBackHalf(setup.back, group, SGD))  # type: ignore[arg-type]
            given["make_run"] = partial(self._run, group)
        patience = Patience(devices=devices, lockstep=True, step_s=LIMIT_S, step_quorum=0.5)
        self.service = Service(setup, self.events.append, patience, ROUNDS, watch=Watch(setup.classes), **given)
        for run in self.runs:
            run.start(self.over.set)

    def _run(self, group: Any, *given: Any) -> JointRun:
        self.runs.append(JointRun(group, *given))
        return self.runs[-1]

    def ask(self, message: Any) -> Any:
        reply = messages.parse(self.service.handle(messages.pack(message)))
        if isinstance(reply, messages.Error):
            raise {cls.exit_code: cls for cls in (Refused, Quarantined, TransportError)}[reply.code](reply.reason)
        return reply

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


def join(served: Served, name: str, epochs: int = EPOCHS) -> Any:
    return served.ask(Hello(served.service.setup.digest, name, BATCH * STEPS, STEPS, epochs, local=True))


def batch(served: Served, session: int, step: int, name: str, kind: type = Feature) -> Any:
    rng = np.random.default_rng((step, NAMES.index(name)))
    codes = CODEC.pack(CODEC.quantize(rng.normal(size=(BATCH, 8, 4, 4)).astype(np.float32), {}))
    labels = rng.integers(0, 3, BATCH).astype(np.uint8).tobytes()
    return served.ask(kind(session, step, 0, BATCH, labels, codes))


def train(served: Served, name: str, epochs: int = EPOCHS, stops: bool = False) -> list[Any]:
    """All that device `name` is answered; it `stops` after its first epoch, without goodbye."""
    welcome = join(served, name)
    session, found = welcome.session, [welcome._replace(token="")]
    for epoch in range(welcome.epoch, epochs):
        for step in range(STEPS):
            found.append(batch(served, session, (epoch - welcome.epoch) * STEPS + step, name))
        change = {"w": np.random.default_rng((epoch, NAMES.index(name), 1)).normal(size=6).astype(np.float32)}
        update = FedAvg().pack(change, np.random.default_rng(0))
        left = BATCH * STEPS * (EPOCHS - epoch - 1)
        found.append(served.ask(Update(session, epoch, BATCH * STEPS, left, update, test=True)))
        found.append(batch(served, session, 0, name, Evaluate))
        found.append(served.ask(messages.Tested(session, epoch + 1)))
        if stops:
            served.service.end(session)
            return found
    served.ask(Bye(session))
    return found


def two(make: Callable[..., Service], devices: int = 4) -> tuple[Served, Served]:
    first, second = (Served(make, group, devices) for group in groups(2))
    return first, second


def figures(reply: Any) -> dict[str, Any]:
    """What of a reply does not depend on the time that was taken."""
    return {**reply._asdict(), "seconds": 0.0, "loss": 0.0, "deviation": 0.0, "gradient": b""}


def same(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted) > 1
    for own, other in zip(found, wanted, strict=True):
        assert figures(own) == figures(other)
        if hasattr(own, "loss"):
            assert own.loss == pytest.approx(other.loss, rel=1e-4, abs=2e-6)


@pytest.mark.parametrize("split", [("ab", "cd"), ("acd", "b"), ("abcd", "")], ids=str)
def test_devices_are_answered_as_by_one_server(make: Callable[..., Service], split: tuple[str, str]) -> None:
    one = Served(make)
    wanted = at_once(*(partial(train, one, name) for name in NAMES))
    ranks = two(make)
    place = {name: rank for rank, names in zip(ranks, split, strict=True) for name in names}
    found = at_once(*(partial(train, place[name], name) for name in NAMES))
    for own, other in zip(found, wanted, strict=True):
        assert isinstance(own, list), own
        same(own, other)
    for rank, names in zip(ranks, split, strict=True):
        assert rank.over.wait(LIMIT_S) and rank.runs[0].failed is None
        assert rank.service.fleet.finished == set(NAMES) and rank.service.fleet.ended == 4
        assert {event["device"] for event in rank.told("joined")} == set(names)
        assert {event["device"] for event in rank.told("left")} == set(names)
        assert np.array_equal(rank.service.rounds.weights["w"], one.service.rounds.weights["w"])
        assert rank.service.ended() == one.service.ended()
    # What concerns all is told once.
    assert len(ranks[0].told("tested")) == len(ranks[0].told("round")) == EPOCHS
    assert not ranks[1].told("tested") + ranks[1].told("round")
    states = [served.service.setup.back.state_dict() for served in (*ranks, one)]
    for name, array in states[0].items():
        assert np.array_equal(array, states[1][name])
        np.testing.assert_allclose(array, states[2][name], rtol=1e-3, atol=1e-5)


def test_the_others_go_on_when_a_device_leaves_and_one_comes(make: Callable[..., Service]) -> None:
    ranks = two(make, devices=3)
    first = at_once(
        partial(train, ranks[0], "a"),
        partial(train, ranks[1], "b"),
        lambda: train(ranks[1], "c", stops=True) + train(ranks[0], "c"),
    )
    assert all(isinstance(each, list) for each in first), first
    for rank in ranks:
        assert rank.over.wait(LIMIT_S) and rank.runs[0].failed is None
        assert rank.service.fleet.finished == {"a", "b", "c"} and rank.service.fleet.progress == 1.0
    assert [event["finished"] for event in ranks[1].told("left") if event["device"] == "c"] == [False]


def test_a_name_is_one_devices_at_all_ranks(make: Callable[..., Service]) -> None:
    ranks = two(make, devices=2)
    found = at_once(partial(join, ranks[0], "a"), partial(join, ranks[1], "a"), partial(join, ranks[1], "b"))
    welcomed = [each for each in found if not isinstance(each, EdgekitError)]
    assert len(welcomed) == 2 and len({each.session for each in welcomed}) == 2
    (refused,) = (each for each in found if isinstance(each, EdgekitError))
    assert "a device named a is in training" in str(refused)
    # A rank welcomes nobody by itself; and no device may use a session that is another rank's.
    elsewhere = ranks[1] if isinstance(found[1], EdgekitError) else ranks[0]
    with pytest.raises(Refused, match="a device named a is in training at another rank"):
        join(elsewhere, "a")
    (session,) = (each.session for each in found[:2] if not isinstance(each, EdgekitError))
    with pytest.raises(Refused, match=f"there is no session {session} here"):
        batch(elsewhere, session, 0, "a")


def test_an_odd_device_is_put_in_quarantine_at_all(make: Callable[..., Service]) -> None:
    ranks = two(make, devices=2)

    def covered() -> None:
        session = join(ranks[1], "b").session
        codes = CODEC.pack(CODEC.quantize(np.ones((BATCH, 8, 4, 4), np.float32), {}))
        for step in range(100):
            ranks[1].ask(Feature(session, step, 0, BATCH, bytes(BATCH), codes))

    def sound() -> list[Any]:
        session = join(ranks[0], "a").session
        return [batch(ranks[0], session, step, "a") for step in range(8)] + [ranks[0].ask(Bye(session))]

    found = at_once(sound, covered)
    assert isinstance(found[0], list) and isinstance(found[1], Quarantined), found
    for rank in ranks:
        assert rank.over.wait(LIMIT_S) and set(rank.service.fleet.quarantined) == {"b"}
    assert not ranks[0].told("quarantined") and len(ranks[1].told("quarantined")) == 1


def test_a_lost_rank_is_an_error_of_all_devices_and_of_the_run(make: Callable[..., Service]) -> None:
    first, second = groups(2)
    ranks = Served(make, first), Served(make, second)
    joined = at_once(*(partial(join, ranks[i % 2], name) for i, name in enumerate(NAMES)))
    waits = partial(batch, ranks[0], joined[0].session, 0, "a")
    found = at_once(waits, second.leave)
    assert isinstance(found[0], TransportError), found
    assert ranks[0].over.wait(LIMIT_S) and isinstance(ranks[0].runs[0].failed, TransportError)
    # Who comes later is told too.
    with pytest.raises(TransportError, match="a rank was lost"):
        batch(ranks[0], joined[2].session, 0, "c")


def test_ranks_that_differ_end(make: Callable[..., Service]) -> None:
    ranks = two(make, devices=2)
    with ranks[1].service._lock:
        ranks[1].service.fleet.progress = 0.5
    for rank in ranks:
        assert rank.over.wait(LIMIT_S)
        assert "the ranks differ in steps, rounds, progress or weights" in str(rank.runs[0].failed)

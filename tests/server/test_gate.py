"""The gate, with a thread for each device: who waits for whom, how long, and what frees those that wait."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from edgekit.codecs.features.raw import Raw
from edgekit.errors import Refused, TransportError, UsageError
from edgekit.line.messages import Ack, Hello
from edgekit.server import gate as gates
from edgekit.server.fleet import Fleet
from edgekit.server.gate import Gate, Ticket
from edgekit.server.policy import Patience
from edgekit.server.session import Session

#: Seconds of a deadline that a test waits for, and one that it does not.
SOON, LONG = 0.1, 300.0


class Hall:
    """A gate whose groups are noted in `groups`, and answered with an Ack of their number."""

    def __init__(self, patience: Patience, present: int) -> None:
        self.lock, self.fleet = threading.Condition(), Fleet(patience.devices)
        self.groups: list[tuple[str, str]] = []
        #: Those that the latest test ended without.
        self.missed: list[Session] = []
        self.error: BaseException | None = None
        self.gate = Gate(self.lock, self.fleet, patience, self._act)
        self._pool = ThreadPoolExecutor(16)
        for name in "abcdefgh"[:present]:
            self._join(self.hello(name))
        if present:
            self.fleet.steps_per_epoch = 0

    def hello(self, name: str) -> Hello:
        return Hello("b", name, 100, 10, 1)

    def ask(self, kind: str, name: str, alive: Callable[[], bool] = lambda: True) -> "Future[Any]":
        """What becomes of a message of device `name`; the thread waits when this returns, if it has to."""
        sessions = {session.device: session for session in self.fleet.sessions.values()}
        session = None if kind == "hello" else sessions[name]
        ticket = Ticket(kind, session, self.hello(name) if kind == "hello" else None, alive)

        def wait() -> Any:
            with self.lock:
                if session:
                    self.gate.heard(session)
                return self.gate.wait(ticket)

        future = self._pool.submit(wait)
        end = time.monotonic() + 60
        while not future.done() and ticket not in self.gate._waiting:
            assert time.monotonic() < end
            time.sleep(0.001)
        return future

    def test(self, names: str) -> None:
        """The devices with these names begin to test."""
        with self.lock:
            for session in self.fleet.in_order():
                if session.device in names:
                    self.gate.test(session)

    def leave(self, name: str) -> None:
        """What a service does when a line broke."""
        with self.lock:
            (session,) = [each for each in self.fleet.sessions.values() if each.device == name]
            self.fleet.leave(session, finished=False)
            self.gate.leave(session)

    def close(self) -> None:
        for session in list(self.fleet.sessions.values()):
            self.leave(session.device)
        self._pool.shutdown()

    def _act(self, kind: str, tickets: list[Ticket]) -> None:
        names = [each.session.device if each.session else each.request.device for each in tickets]
        self.groups.append((kind, "".join(names)))
        if self.error:
            raise self.error
        for ticket in tickets:
            if ticket.session is None:
                self._join(ticket.request)
                self.fleet.steps_per_epoch = 0
            else:
                ticket.session.step += kind == "feature"
            ticket.reply = Ack(step=len(self.groups))
        if kind == "tested":
            self.missed = self.gate.end_test([ticket.session for ticket in tickets if ticket.session])

    def _join(self, hello: Hello) -> None:
        self.fleet.joined += 1
        self.fleet.join(Session.begin(self.fleet.joined, hello, SETUP))


class _Setup:
    tables: dict[str, Any] = {}  # noqa: RUF012
    codec = Raw()


SETUP: Any = _Setup()


@pytest.fixture
def hall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hall]]:
    monkeypatch.setattr(gates, "NAP_S", 0.01)
    made: list[Hall] = []

    def make(present: int = 0, **patience: Any) -> Hall:
        given = {"step_s": LONG, "step_quorum": 1.0, "round_s": LONG, "round_quorum": 1.0}
        made.append(Hall(Patience(**{**given, **patience}), present))
        return made[-1]

    yield make
    for each in made:
        each.close()


def done(*futures: "Future[Any]") -> list[int]:
    """The numbers of the groups that the messages were answered in."""
    return [future.result(60).step for future in futures]


class TestHello:
    def test_a_run_begins_when_all_have_come(self, hall: Callable[..., Hall]) -> None:
        it = hall(devices=3, start_s=LONG)
        waiting = [it.ask("hello", name) for name in "ca"]
        assert it.groups == [] and sorted(it.gate.names()) == ["a", "c"]
        assert done(it.ask("hello", "b"), *waiting) == [1, 1, 1]
        # In the order of their names, whoever came first.
        assert it.groups == [("hello", "abc")] and [s.device for s in it.fleet.sessions.values()] == ["a", "b", "c"]
        assert done(it.ask("hello", "d")) == [2], "a late one waits for nobody"

    def test_it_begins_without_those_that_are_too_late(self, hall: Callable[..., Hall]) -> None:
        it, start = hall(devices=3, start_s=SOON), time.monotonic()
        first, second = it.ask("hello", "a"), it.ask("hello", "b")
        assert done(first, second) == [1, 1] and time.monotonic() - start >= SOON

    def test_it_begins_with_the_first_where_nobody_knows_how_many(self, hall: Callable[..., Hall]) -> None:
        it = hall()
        assert done(it.ask("hello", "a")) == [1]

    def test_who_hangs_up_is_not_counted(self, hall: Callable[..., Hall]) -> None:
        it = hall(devices=2, start_s=LONG)
        line = [True]
        gone = it.ask("hello", "a", lambda: line[0])
        line[0] = False
        with pytest.raises(TransportError, match="the line broke"):
            gone.result(60)
        first = it.ask("hello", "b")
        assert it.gate.names() == ["b"] and it.groups == []
        assert done(it.ask("hello", "c"), first) == [1, 1]


class TestSteps:
    def test_a_step_is_made_when_all_wait(self, hall: Callable[..., Hall]) -> None:
        it = hall(3)
        waiting = [it.ask("feature", name) for name in "cb"]
        assert it.groups == []
        assert done(it.ask("feature", "a"), *waiting) == [1, 1, 1] and it.groups == [("feature", "abc")]

    def test_who_waits_for_a_round_is_not_waited_for(self, hall: Callable[..., Hall]) -> None:
        it = hall(3)
        early = it.ask("update", "a")
        assert done(*[it.ask("feature", name) for name in "bc"]) == [1, 1]
        second = it.ask("update", "c")
        assert done(it.ask("feature", "b")) == [2] and not early.done()
        assert done(it.ask("update", "b"), early, second) == [3, 3, 3]
        assert it.groups == [("feature", "bc"), ("feature", "b"), ("update", "abc")]

    def test_after_the_deadline_a_quorum_is_enough(self, hall: Callable[..., Hall]) -> None:
        it = hall(4, step_s=SOON, step_quorum=0.5)
        start = time.monotonic()
        first = it.ask("feature", "a")
        time.sleep(3 * SOON)
        assert not first.done(), "one of four is no half"
        assert done(it.ask("feature", "c"), first) == [1, 1] and time.monotonic() - start >= SOON
        start = time.monotonic()
        both = [it.ask("feature", name) for name in "ab"]
        assert done(*both) == [2, 2] and time.monotonic() - start >= SOON, "seconds count from the first that waits"
        assert it.groups == [("feature", "ac"), ("feature", "ab")]

    def test_those_in_a_round_are_no_part_of_the_quorum(self, hall: Callable[..., Hall]) -> None:
        it = hall(4, step_s=SOON, step_quorum=0.5)
        early = [it.ask("update", name) for name in "bc"]
        assert done(it.ask("feature", "a")) == [1] and not any(each.done() for each in early)

    def test_without_patience_each_batch_is_a_step(self, hall: Callable[..., Hall]) -> None:
        it = hall(3, step_s=0.0, step_quorum=0.0)
        assert done(*[it.ask("feature", name) for name in "ba"]) == [1, 2]


class TestAbsent:
    """A device that was too late is not waited for again before it is heard of."""

    @pytest.mark.parametrize("kind", ["feature", "update"])
    def test_a_deadline_passes_once(self, hall: Callable[..., Hall], kind: str) -> None:
        it = hall(3, lockstep=True, step_s=SOON, step_quorum=0.5, round_s=SOON, round_quorum=0.5)
        assert done(*[it.ask(kind, name) for name in "ab"]) == [1, 1] and not it.gate.complete
        it.gate._patience = it.gate._patience._replace(step_s=LONG, round_s=LONG)
        assert done(*[it.ask(kind, name) for name in "ab"]) == [2, 2] and not it.gate.complete
        waiting = [it.ask(kind, name) for name in "ac"]
        assert not any(each.done() for each in waiting), "c was heard of"
        assert done(it.ask(kind, "b"), *waiting) == [3, 3, 3] and it.gate.complete

    def test_a_quorum_is_needed_all_the_same(self, hall: Callable[..., Hall]) -> None:
        it = hall(4, lockstep=True, step_s=SOON, step_quorum=0.5)
        assert done(*[it.ask("feature", name) for name in "ab"]) == [1, 1]
        it.leave("a")
        alone = it.ask("feature", "b")
        time.sleep(3 * SOON)
        assert not alone.done(), "one of three is no half"
        assert done(it.ask("feature", "c"), alone) == [2, 2]

    def test_batches_in_the_order_of_arrival_wait_for_the_next_all_the_same(self, hall: Callable[..., Hall]) -> None:
        it = hall(2, step_s=SOON, step_quorum=0.5)
        assert done(it.ask("feature", "a")) == [1]
        start = time.monotonic()
        assert done(it.ask("feature", "a")) == [2] and time.monotonic() - start >= SOON


class TestRounds:
    def test_after_the_deadline_a_quorum_is_enough(self, hall: Callable[..., Hall]) -> None:
        it = hall(4, round_s=SOON, round_quorum=0.5)
        first = it.ask("update", "a")
        time.sleep(3 * SOON)
        assert not first.done()
        assert done(it.ask("update", "b"), first) == [1, 1] and it.groups == [("update", "ab")]

    def test_a_batch_goes_before_a_round_that_is_due(self, hall: Callable[..., Hall]) -> None:
        it = hall(3, round_s=LONG, step_s=SOON, step_quorum=0.0)
        early = [it.ask("update", name) for name in "ab"]
        assert done(it.ask("feature", "c")) == [1]
        assert done(it.ask("update", "c"), *early) == [2, 2, 2]


class TestTests:
    """While devices test, nobody trains."""

    def test_training_waits_until_all_that_test_are_done(self, hall: Callable[..., Hall]) -> None:
        it = hall(3, step_s=0.0, step_quorum=0.0, round_s=0.0, round_quorum=0.0)
        it.test("ab")
        trains, tests = it.ask("feature", "c"), it.ask("tested", "a")
        time.sleep(SOON)
        assert it.groups == [] and not trains.done() and not tests.done()
        assert done(it.ask("tested", "b"), tests, trains) == [1, 1, 2]
        assert it.groups == [("tested", "ab"), ("feature", "c")]

    def test_who_leaves_in_a_test_is_not_waited_for(self, hall: Callable[..., Hall]) -> None:
        it = hall(2)
        it.test("ab")
        tests = it.ask("tested", "a")
        assert not tests.done()
        it.leave("b")
        assert done(tests) == [1]

    def test_a_test_of_nobody_else_is_answered_at_once(self, hall: Callable[..., Hall]) -> None:
        it = hall(2)
        assert done(it.ask("tested", "a")) == [1]

    @pytest.mark.parametrize("kind", ["feature", "update"])
    def test_who_says_that_it_tests_trains_no_more_before(self, hall: Callable[..., Hall], kind: str) -> None:
        it = hall(2)
        it.test("a")
        with pytest.raises(Refused, match=f"a said that it tests, and sent {kind}: say tested first"):
            it.ask(kind, "a").result(60)
        assert done(it.ask("tested", "a")) == [1], "it can go on"

    def test_who_says_nothing_in_its_test_is_not_waited_for(self, hall: Callable[..., Hall]) -> None:
        it, start = hall(3, test_s=2 * SOON, step_quorum=0.5), time.monotonic()
        it.test("abc")
        assert done(*[it.ask("tested", name) for name in "ab"]) == [1, 1] and time.monotonic() - start >= 2 * SOON
        assert [session.device for session in it.missed] == ["c"]
        assert done(*[it.ask("feature", name) for name in "ab"]) == [2, 2], "steps go on without it"

    def test_who_goes_on_with_its_test_is_waited_for(self, hall: Callable[..., Hall]) -> None:
        it = hall(2, test_s=LONG)
        it.test("ab")
        first, (_, slow) = it.ask("tested", "a"), it.fleet.in_order()
        with it.lock:
            it.gate.testing[slow.number] -= 0.6 * LONG
            it.gate.heard(slow)
            it.gate.testing[slow.number] -= 0.6 * LONG
        time.sleep(SOON)
        assert not first.done()
        assert done(it.ask("tested", "b"), first) == [1, 1]

    def test_others_train_on_when_nobody_else_tests(self, hall: Callable[..., Hall]) -> None:
        it = hall(3, test_s=SOON, step_quorum=0.5)
        it.test("c")
        assert done(*[it.ask("feature", name) for name in "ab"]) == [1, 1]

    def test_a_new_device_joins_while_others_test(self, hall: Callable[..., Hall]) -> None:
        it = hall(1)
        it.test("a")
        assert done(it.ask("hello", "b")) == [1]


class TestLeaving:
    @pytest.mark.parametrize("kind", ["feature", "update"])
    def test_a_line_that_breaks_frees_the_others(self, hall: Callable[..., Hall], kind: str) -> None:
        it = hall(3)
        waiting = [it.ask(kind, name) for name in "ab"]
        assert it.groups == []
        it.leave("c")
        assert done(*waiting) == [1, 1] and it.groups == [(kind, "ab")]

    def test_the_message_of_a_broken_line_is_given_up(self, hall: Callable[..., Hall]) -> None:
        it, line = hall(2), [True]
        broken = it.ask("feature", "a", lambda: line[0])
        line[0] = False
        with pytest.raises(TransportError, match="the line broke while its message waited"):
            broken.result(60)
        other = it.ask("feature", "b")
        assert not other.done(), "its session is still there"
        it.leave("a")
        assert done(other) == [1] and it.groups == [("feature", "b")]

    def test_a_session_that_ends_gives_its_message_up(self, hall: Callable[..., Hall]) -> None:
        it = hall(2)
        waiting = it.ask("feature", "a")
        it.leave("a")
        with pytest.raises(Refused, match="the session ended while its message waited"):
            waiting.result(60)


class TestErrors:
    @pytest.mark.parametrize("error", [Refused("diverged"), ZeroDivisionError("a bug")])
    def test_what_fails_fails_for_all_of_the_group(self, hall: Callable[..., Hall], error: Exception) -> None:
        it = hall(2)
        it.error = error
        futures = [it.ask("feature", name) for name in "ab"]
        for future in futures:
            with pytest.raises(type(error), match=str(error)):
                future.result(60)
        it.error = None
        assert done(*[it.ask("feature", name) for name in "ab"]) == [2, 2], "the next goes through"


class TestAhead:
    @pytest.fixture
    def fast(self, hall: Callable[..., Hall]) -> Hall:
        """Three devices that wait for nobody, but none may be more than two steps ahead."""
        return hall(3, step_s=0.0, step_quorum=0.0, ahead=2)

    def test_who_is_too_far_ahead_waits_for_the_slowest(self, fast: Hall) -> None:
        for step in range(3):
            assert done(fast.ask("feature", "a")) == [step + 1]
        far = fast.ask("feature", "a")
        assert done(fast.ask("feature", "b")) == [4] and not far.done(), "c has made none"
        assert done(fast.ask("feature", "c"), far) == [5, 6]

    def test_who_waits_for_a_round_or_has_no_more_to_do_is_not_waited_for(self, fast: Hall) -> None:
        sessions = {session.device: session for session in fast.fleet.sessions.values()}
        sessions["b"].left = 0
        in_round = fast.ask("update", "c")
        for step in range(1, 6):
            assert done(fast.ask("feature", "a")) == [step]
        # Who trains on after all that it had planned holds nobody up, and is not held up.
        assert done(fast.ask("feature", "b")) == [6] and not in_round.done()
        for session in sessions.values():
            session.left = 0
        assert done(fast.ask("feature", "a")) == [7]

    def test_who_joins_late_does_not_hold_the_others_up(self, fast: Hall) -> None:
        for _ in range(9):
            done(*[fast.ask("feature", name) for name in "abc"])
        done(fast.ask("hello", "d"))
        for _ in range(3):
            done(fast.ask("feature", "a"))
        far = fast.ask("feature", "a")
        assert not far.done()
        done(*[fast.ask("feature", name) for name in "bcd"], far)


@pytest.mark.parametrize(
    "wrong", [{"step_s": -1.0}, {"start_s": float("inf")}, {"round_quorum": 1.5}, {"step_quorum": -0.1}, {"ahead": -1},
              {"round_s": float("nan")}],
)  # fmt: skip
def test_patience_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} of .*: expected"):
        Patience(**wrong).check()
    Patience().check()

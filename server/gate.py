"""Gate: messages of several devices that are answered together wait here for each other.

::

    hello     until the devices that the run begins with have all come
    feature   until every device present waits for something: one step on all of them
    update    until every device present waits for a round
    tested    until every device that tests is done; meanwhile nobody trains
    saved     until every device present has saved its state, or said bye

A device that waits is a thread that waits, but for batches that were taken in ahead (`edgekit.server.steps`), whose
threads come later. One that finds that all have come does the work for all. So the order in which messages arrive
decides nothing, as long as none comes too late. Who was too late is not waited for again before it is heard of.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition
from typing import Any

from edgekit.errors import EdgekitError, Refused, TransportError
from edgekit.server.checkpoints import WAIT_S
from edgekit.server.fleet import Fleet
from edgekit.server.policy import Patience
from edgekit.server.session import Session

#: Longest sleep of a thread that waits, in seconds: it looks whether a device has left or a deadline has passed.
NAP_S = 0.5
#: What a device does whose message of a kind waits.
WAITS = {"feature": "waits_step", "update": "waits_round", "tested": "waits_test", "saved": "waits_save"}


@dataclass(eq=False)
class Ticket:
    """One message that waits, and what became of it. `work` is what was made of the message when it came."""

    kind: str
    session: Session | None
    request: Any
    #: Whether its line still holds.
    alive: Callable[[], bool]
    work: Any = None
    arrived: float = 0.0
    #: Whether it came to this process. Of those that another rank has there are copies, which wait there.
    here: bool = True
    #: The reply, or what the thread that waits makes one of.
    reply: Any = None
    error: Exception | None = None


class Gate:
    """`act` answers tickets of one kind, in the order of their devices' names, with the lock held.

    Those that it leaves without an answer wait on.
    """

    def __init__(
        self,
        lock: Condition,
        fleet: Fleet,
        patience: Patience,
        act: Callable[[str, list[Ticket]], None],
        must_save: Callable[[Session | None], bool] = lambda session: False,
    ) -> None:
        patience.check()
        self._lock, self._fleet, self._patience, self._act = lock, fleet, patience, act
        #: Whether a session whose update waits is to save first.
        self._must_save = must_save
        self._waiting: list[Ticket] = []
        #: Whether all devices present waited when the latest tickets were answered.
        self.complete = True
        #: Numbers of the sessions that test -> when each was last heard of.
        self.testing: dict[int, float] = {}
        #: Numbers of the sessions that were too late for something, and that were not heard of since.
        self._absent: set[int] = set()
        #: Whether somebody else calls `ready` and `answer` (`edgekit.server.ranks`), and not the last one to come.
        self.led = False
        self._failed: EdgekitError | None = None

    def enter(self, ticket: Ticket) -> None:
        """Lets `ticket` wait, for a thread that asks later what became of it (`wait`). Refused out of turn."""
        session = ticket.session
        if self._failed is not None:
            raise self._failed
        if session and not self._fleet.own(session.number):
            raise Refused("the session ended while its message was read")
        if session:
            self.heard(session)
        if session and session.number in self.testing and ticket.kind != "tested":
            raise Refused(f"{session.device} said that it tests, and sent {ticket.kind}: say tested first")
        ticket.arrived = time.monotonic()
        self._waiting.append(ticket)
        # It may be the one that a thread that waits, or the one that leads, waits for.
        (self._lock.notify_all if self.led else self._lock.notify)()

    def wait(self, ticket: Ticket) -> Any:
        """The reply of `ticket`; the lock is held, and let go of while the ticket waits. Refused out of turn."""
        if not ticket.arrived:
            self.enter(ticket)
        while ticket.reply is None and ticket.error is None:
            if ticket not in self._waiting:
                raise Refused("the session ended while its message waited")
            if not ticket.alive():
                self._waiting.remove(ticket)
                raise TransportError("the line broke while its message waited")
            group = [] if self.led else self.ready(time.monotonic())
            if group:
                self.answer(group)
            else:
                self._lock.wait(self._nap(time.monotonic()))
        if ticket.error is not None:
            raise ticket.error
        return ticket.reply

    @property
    def all_known(self) -> bool:
        """Whether it is said how many devices a run begins with."""
        return self._patience.devices is not None

    def hellos(self) -> list[Ticket]:
        """Tickets of the devices that wait to join."""
        return [ticket for ticket in list(self._waiting) if ticket.kind == "hello" and ticket.alive()]

    def names(self) -> list[str]:
        """Names of those devices."""
        return [ticket.request.device for ticket in self.hellos()]

    def doing(self) -> dict[int, str]:
        """By session, what those do that do not train, without the lock: see `edgekit.server.observe.status`."""
        waiting = {ticket.session.number: WAITS[ticket.kind] for ticket in list(self._waiting) if ticket.session}
        return {**dict.fromkeys(set(self.testing), "testing"), **dict.fromkeys(set(self._absent), "late"), **waiting}

    def fail(self, error: EdgekitError) -> None:
        """Gives all who wait, and all who come from now on, `error`."""
        self._failed = error
        for ticket in self._waiting:
            ticket.error = error
        self._lock.notify_all()

    def heard(self, session: Session) -> None:
        """For the messages of `session` that take the lock: it is there."""
        self._absent.discard(session.number)
        if session.number in self.testing:
            self.testing[session.number] = time.monotonic()

    def test(self, session: Session) -> None:
        """Nobody trains until `session` says that its test is over, or says nothing for too long."""
        self.testing[session.number] = time.monotonic()

    def end_test(self, sessions: Sequence[Session]) -> list[Session]:
        """Ends the test of all, with what `sessions` found; those whose test it ended without."""
        missed = self.testing.keys() - {session.number for session in sessions}
        self.testing.clear()
        return [self._fleet.sessions[number] for number in sorted(missed)]

    def clear(self) -> None:
        """Forgets everything, for a run that goes back; what waits has been given up."""
        self._waiting = [each for each in self._waiting if each.kind == "hello"]
        self.testing, self.complete = {}, True
        self._absent.clear()
        self._lock.notify_all()

    def leave(self, session: Session) -> None:
        """Forgets `session`, for which nobody has to wait any more."""
        self.testing.pop(session.number, None)
        self._absent.discard(session.number)
        self._waiting = [each for each in self._waiting if each.session is not session]
        self._lock.notify_all()

    def answer(self, group: list[Ticket]) -> None:
        """Answers `group`, tickets of one kind; those of them that get no answer wait on."""
        is_round = group[0].kind == "update" and not self._must_save(group[0].session)
        if is_round or (group[0].kind == "feature" and self._patience.lockstep):
            self._absent |= self._fleet.here.keys() - _numbers(self._waiting)
        self._waiting = [each for each in self._waiting if each not in group]
        try:
            self._act(group[0].kind, group)
            for ticket in group:
                if ticket.here and ticket.reply is None and ticket.error is None:
                    ticket.arrived = time.monotonic()
                    self._waiting.append(ticket)
        except Exception as error:
            for ticket in group:
                ticket.error = error
            if not isinstance(error, EdgekitError):
                raise
        finally:
            self._lock.notify_all()

    def ready(self, now: float) -> list[Ticket]:
        """The tickets to answer now, of one kind; none where others are waited for."""
        patience, sessions = self._patience, self._fleet.here
        hello, begun = self._of("hello"), self._fleet.steps_per_epoch is not None and not self._fleet.over
        come = len(hello) + len(sessions)
        if hello and (begun or come >= (patience.devices or 1) or _late(hello, now, patience.start_s)):
            return hello
        saved = self._of("saved")
        if saved and (_numbers(saved) >= sessions.keys() or _late(saved, now, WAIT_S)):
            return saved
        must_save = [each for each in self._of("update") if self._must_save(each.session)]
        if must_save:
            return must_save
        tested = self._of("tested")
        busy = {number: heard for number, heard in self.testing.items() if number not in _numbers(tested)}
        self._absent |= {number for number, heard in busy.items() if now - heard >= patience.test_s}
        if busy.keys() - self._absent:
            return []
        if tested:
            return tested
        waiting = _numbers(self._waiting)
        all_wait = waiting >= sessions.keys() - self._absent
        feature, update = self._of("feature"), self._of("update")
        self.complete = _numbers([*feature, *update]) == sessions.keys()
        if feature:
            wanted = patience.step_quorum * (len(sessions) - len(update) - len(saved))
            enough = len(feature) >= wanted and (all_wait or _late(feature, now, patience.step_s))
            return self._not_ahead(feature) if enough else []
        if update and len(update) >= patience.round_quorum * len(sessions):
            return update if all_wait or _late(update, now, patience.round_s) else []
        return []

    def _of(self, kind: str) -> list[Ticket]:
        """Tickets of `kind`, at most the first of each session, in the order of the devices' names."""
        found = {id(ticket.session or ticket): ticket for ticket in reversed(self._waiting) if ticket.kind == kind}
        return sorted(found.values(), key=lambda each: each.session.device if each.session else each.request.device)

    def _not_ahead(self, tickets: list[Ticket]) -> list[Ticket]:
        """`tickets` but for those of devices that are too far ahead of the slowest one that still trains.

        A device that waits for a round, or has saved, is not waited for: that itself waits for those that train.
        """
        if self._patience.ahead is None:
            return tickets
        in_round = _numbers([*self._of("update"), *self._of("saved")])
        pace = {
            number: session.others + session.step
            for number, session in self._fleet.sessions.items()
            if session.left and number not in in_round
        }
        # A device that trains on more than it planned has no pace, and holds nobody up.
        slowest = min(pace.values(), default=0)
        return [each for each in tickets if each.session
                and pace.get(each.session.number, slowest) - slowest <= self._patience.ahead]  # fmt: skip

    def _nap(self, now: float) -> float:
        patience = self._patience
        limits = {"hello": patience.start_s, "feature": patience.step_s, "update": patience.round_s}
        ends = [each.arrived + limits[each.kind] - now for each in self._waiting if each.kind in limits]
        return min([NAP_S, *(end for end in ends if end > 0)])


def _numbers(tickets: Sequence[Ticket]) -> set[int]:
    """Numbers of the sessions of `tickets`."""
    return {ticket.session.number for ticket in tickets if ticket.session}


def _late(tickets: Sequence[Ticket], now: float, seconds: float) -> bool:
    return now - min(ticket.arrived for ticket in tickets) >= seconds

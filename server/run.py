"""Run: what a server does when the messages that belong together are there, and all that it knows of its run.

All of it happens with the service's lock held, but for what says otherwise.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Condition
from typing import Any

from edgekit.carried import NO_REST
from edgekit.errors import Quarantined, UsageError
from edgekit.line.messages import Ack, Bye, Save
from edgekit.server import events
from edgekit.server.checkpoints import Checkpoints
from edgekit.server.fleet import Fleet
from edgekit.server.gate import Gate, Ticket
from edgekit.server.handlers import training
from edgekit.server.handlers.evaluation import tally, tally_message
from edgekit.server.handlers.joining import welcome
from edgekit.server.handlers.update import close_round
from edgekit.server.lines import Lines
from edgekit.server.pairs import Pairs
from edgekit.server.policy import Patience, RoundPolicy
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.state import restore, state_of
from edgekit.server.watch import Watch


class Run:
    """The fleet, its rounds, and the gate at which messages wait for each other.

    `on_event` is called with the events of `edgekit.server.events`, and "round".
    """

    def __init__(
        self,
        setup: Setup,
        on_event: Callable[[dict[str, Any]], None],
        patience: Patience,
        rounds: RoundPolicy,
        pairs: Pairs | None,
        seed: int,
        watch: Watch | None,
        lines: Lines,
        lock: Condition,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.on_event = on_event
        self.fleet = Fleet(patience.devices)
        self.rounds = Rounds(rounds, setup, seed)
        self.watch = watch
        self.checkpoints = checkpoints
        must_save = checkpoints.asks if checkpoints is not None else lambda session: False
        self.gate = Gate(lock, self.fleet, patience, self.act, must_save)
        self._setup = setup
        self._patience = patience
        self._pairs = pairs
        self._best: float | None = None
        self._lines, self._lock = lines, lock

    def doing(self) -> dict[int, str]:
        """By session, what its device does, left out where it trains (`edgekit.server.observe.status`); without the
        lock, at any time.
        """
        resting = [session.number for session in list(self.fleet.sessions.values()) if session.resting]
        away = dict.fromkeys(self._lines.away(), "away")
        return {**dict.fromkeys(resting, "resting"), **self.gate.doing(), **away}

    def act(self, kind: str, tickets: list[Ticket]) -> None:
        """Answers tickets of one kind together, with the lock held."""
        acts = {
            "hello": self._welcome, "feature": self._train, "update": self._round, "tested": self._tested,
            "saved": self._saved,
        }  # fmt: skip
        acts[kind](tickets)

    def _welcome(self, tickets: list[Ticket]) -> None:
        new = []
        for ticket in tickets:
            self.fleet.joined += 1
            session = Session.begin(self.fleet.joined, ticket.request, self._setup, ticket.here)
            self.fleet.join(session)
            if session.here:
                session.token = self._lines.begin(session.number, ticket.request.window)
                self.on_event(events.joined(session))
            new.append((ticket, session))
        if self.fleet.steps_per_epoch is None:
            self.fleet.begin(self._patience)
        self.rounds.rest(self.fleet)
        self.begin_checkpoint()
        for ticket, session in new:
            ticket.reply = welcome(self._setup, self.fleet, self.rounds, session, self._label_for(session))

    def _train(self, tickets: list[Ticket]) -> None:
        self.fleet.short_steps += not self.gate.complete
        if not self.rounds.policy.every:
            # Else the two halves are a pair only just after a round.
            self._keep(whenever=False)
        outcomes = training.train(self._setup, self.fleet, self.watch, [ticket.work for ticket in tickets])
        # One that tests or is away is asked only later, and all others would wait for it.
        missing = self.gate.testing or self._lines.away()
        if self.checkpoints is not None and self.checkpoints.due(self.fleet.steps) and not missing:
            self.begin_checkpoint()
        for ticket, learned in zip(tickets, outcomes, strict=True):
            assert ticket.session is not None
            verdict = self.watch.verdict(ticket.session.device) if self.watch else None
            if verdict is None:
                ticket.reply = replace(learned, save=self._label_for(ticket.session))
                _warn(ticket.session, learned.warning, self.on_event)
            else:
                ticket.error = Quarantined(f"{ticket.session.device} is in quarantine: {verdict}")
                self._quarantine(ticket.session, verdict)

    def _round(self, tickets: list[Ticket]) -> None:
        labels = [self._label_for(ticket.session) for ticket in tickets if ticket.session]
        if any(labels):
            for ticket, label in zip(tickets, labels, strict=True):
                if label:
                    ticket.reply = Save(ticket.request.session, label)
            return
        entries = [(ticket.session, ticket.request, ticket.work) for ticket in tickets if ticket.session]
        closed = close_round(self.fleet, self.rounds, entries)
        for ticket, (session, update, _) in zip(tickets, entries, strict=True):
            ticket.reply = closed.replies.get(session.number)
            if ticket.reply is None:
                ticket.request, ticket.work = update._replace(images=0, update=b"", rest=NO_REST), None
            elif update.test and session.here:
                session.missed = None
                self.gate.test(session)
        if self.rounds.policy.every:
            self._keep(whenever=False)
            self.on_event(closed.told)

    def _tested(self, tickets: list[Ticket]) -> None:
        sessions = [ticket.session for ticket in tickets if ticket.session]
        epoch = max(ticket.request.step for ticket in tickets)
        test, validation, accuracy = tally(sessions)
        best = accuracy is not None and (self._best is None or accuracy > self._best)
        if best:
            self._best = accuracy
        self._keep(best)
        self.on_event(events.tested(epoch, len(sessions), test, validation, best))
        for ticket, session in zip(tickets, sessions, strict=True):
            ticket.reply = tally_message(session, ticket.request.step, test, best)
        for late in self.gate.end_test(sessions):
            late.missed = tally_message(late, epoch, test, best)

    def _saved(self, tickets: list[Ticket]) -> None:
        present = {ticket.session.number for ticket in tickets if ticket.session} >= self.fleet.sessions.keys()
        whole = present and all(isinstance(ticket.request, Bye) or ticket.request.done for ticket in tickets)
        for ticket in tickets:
            if isinstance(ticket.request, Bye) and ticket.session:
                self.end(ticket.session, finished=True)
        label = 0
        try:
            assert self.checkpoints is not None
            label = self.checkpoints.close(whole, self.fleet.steps, self._state)
            self.on_event(events.checkpoint(label, self.fleet, whole))
        except UsageError as error:
            self.on_event(events.not_kept(str(error)))
        for ticket in tickets:
            ticket.reply = Ack(ticket.request.session, label)

    def begin_checkpoint(self) -> None:
        """All devices present are to save; nothing where there are no checkpoints."""
        if self.checkpoints is not None:
            self.checkpoints.begin(self.fleet.sessions.values())

    def _label_for(self, session: Session) -> int:
        """The label that `session` is to save as, told once; else 0."""
        return self.checkpoints.ask(session) if self.checkpoints is not None else 0

    def _state(self) -> dict[str, Any]:
        """All that goes on from here; no message may be under way but those that say that they have saved."""
        held = state_of(self._setup, self.fleet, self.rounds, self.watch)
        return {**held, "best": self._best, "ended": list(map(list, self._lines.tokens_of_ended().items()))}

    def go_back(self, state: dict[str, Any]) -> None:
        """Goes back to the checkpoint `state`; every device that was in it is away. Nobody may have a turn."""
        sessions = restore(state, self._setup, self.fleet, self.rounds, self.watch)
        self._best = state["best"]
        self.gate.clear()
        self._lines.go_back(state["label"], sessions, dict(state["ended"]))
        if self.checkpoints is not None:
            self.checkpoints.went_back(self.fleet.steps)
        self.on_event(events.went_back(state["label"], self.fleet))

    def _quarantine(self, session: Session, reason: str) -> None:
        """Ends `session`; nothing more is learned from its device."""
        self.fleet.quarantined[session.device] = reason
        if session.here:
            self.on_event(events.quarantined(session, reason))
        Run.end(self, session, finished=False)

    def _keep(self, best: bool = False, whenever: bool = True) -> None:
        """Keeps the pair as it is now, if not `whenever` only when it is due. A full disk ends no run: it is told.

        Where the devices differ in some layers there is none to keep.
        """
        if self._pairs is not None and self.rounds.in_step and (whenever or self._pairs.due):
            try:
                self._pairs.keep_now(self._setup, self.rounds, best)
            except UsageError as error:
                self.on_event(events.not_kept(str(error)))

    def keep_last(self) -> None:
        """Keeps the pair as it is now, if there is one, as the last one; UsageError when it cannot be written."""
        if self._pairs is not None and self.rounds.in_step:
            self._pairs.keep_now(self._setup, self.rounds, best=False)

    def end(self, session: Session, finished: bool) -> None:
        """Ends `session`, whose device said bye (`finished`), or is not waited for any longer."""
        self.fleet.leave(session, finished)
        if self.watch is not None:
            self.watch.forget(session.device)
        if session.here:
            self._let_go(session, finished)

    def _let_go(self, session: Session, finished: bool) -> None:
        """The part of it that concerns nobody but this process."""
        self._lines.end(session.number, finished)
        self.gate.leave(session)
        self.on_event(events.left(session, finished))


def _warn(session: Session, warning: str, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Tells of a warning when it is new."""
    if warning and warning != session.warning and session.here:
        on_event(events.warned(session, warning))
    session.warning = warning

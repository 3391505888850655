"""Service: the server's answer to every message, without sockets. Sessions begin and end here.

::

    hello --> a new Session --> welcome
    codebook, evaluate --> its session --> handlers/ --> ack, result
    feature, update, tested --> gate.py, until the other devices are there --> handlers/, rounds.py
    bye, or a line that broke --> the session ends

Each device's messages come in a thread of its own. Three things keep the threads apart:

- The lock is held by who touches what devices share: the fleet, the gate, the rounds, the watch, and the back half.
- A session is its thread's while a message has its turn, from when it comes until the reply is there. So its stream
  and tables need no lock. While the message waits at the gate, who holds the lock may change the session.
- One thread at a time codes or decodes, while another may train: two that code only take the interpreter from each
  other (docs/decisions.md). Nobody waits for the lock who holds the coder.
"""

from collections.abc import Callable
from threading import Condition, Lock
from typing import Any

from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.errors import EdgekitError, Quarantined, Refused
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import Ack, AnyMessage, Bye, Codebook, Error, Evaluate, Feature, Hello, Tested, Update
from edgekit.server import events
from edgekit.server.fleet import Fleet
from edgekit.server.gate import Gate, Ticket
from edgekit.server.handlers import training
from edgekit.server.handlers.codebook import patch_tables
from edgekit.server.handlers.evaluation import evaluate, missed, tally, tally_message
from edgekit.server.handlers.health import pong
from edgekit.server.handlers.joining import check_hello, welcome
from edgekit.server.handlers.update import close_round
from edgekit.server.pairs import Pairs
from edgekit.server.policy import Every, Patience, RoundPolicy
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.turns import Turns
from edgekit.server.watch import Watch

TAKEN = ("hello", "codebook", "evaluate", "feature", "update", "tested", "bye")
#: Nobody waits for anybody: each batch is a step of its own.
AT_ONCE = Patience(round_s=0.0, round_quorum=0.0)
#: Every device learns alone.
ALONE = RoundPolicy(Every(), FedAvg())


class Service:
    """One back half, shared by all sessions. Without a `watch` nobody judges what devices send.

    `on_event` is called, with the lock held, with the events of `edgekit.server.events`, and "round".
    """

    def __init__(
        self,
        setup: Setup,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
        patience: Patience = AT_ONCE,
        rounds: RoundPolicy = ALONE,
        pairs: Pairs | None = None,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self.setup = setup
        self.on_event = on_event
        self.fleet = Fleet(patience.devices)
        self.rounds = Rounds(rounds, setup, seed)
        self._watch = watch
        self._patience = patience
        self._pairs = pairs
        self._best: float | None = None
        self._lock = Condition()
        self._coder = Lock()
        self._turns = Turns()
        self._gate = Gate(self._lock, self.fleet, patience, self._act)

    def handle(self, message: Message, alive: Callable[[], bool] = lambda: True) -> Message:
        """The reply to a frame's content; an EdgekitError becomes an error message with its exit code and text.

        Some messages wait for other devices; when the line is no longer `alive` they are given up.
        """
        try:
            if message.kind == "ping":
                # Without the lock: behind a step of training the time in it would be old.
                return messages.pack(pong(self.setup, message, len(self.fleet.sessions)))
            return messages.pack(self._answer(message, alive))
        except EdgekitError as error:
            return error_message(error, message.session, message.step)

    def left(self, number: int) -> None:
        """Ends session `number`, whose line broke; nothing happens when it has ended already."""
        with self._lock:
            if number in self.fleet.sessions:
                self._end(self.fleet.sessions[number], finished=False)

    def keep_last(self) -> None:
        """Keeps the two halves as they are now, as the last pair."""
        with self._lock:
            self._keep(best=False)

    def ended(self) -> dict[str, Any]:
        """The "ended" event."""
        return events.ended(self.fleet, self.rounds, self._gate.all_known)

    def _answer(self, message: Message, alive: Callable[[], bool]) -> AnyMessage:
        if message.kind not in TAKEN:
            raise Refused(f"a server takes {', '.join(TAKEN)} and ping messages, got {message.kind}")
        if message.kind == "hello":
            hello = messages.parse(message)
            assert isinstance(hello, Hello)
            with self._lock:
                check_hello(self.setup, self.fleet, hello, self._gate.names())
                welcomed: AnyMessage = self._gate.wait(Ticket("hello", None, hello, alive))
            return welcomed
        # Not under the lock: it is held for as long as a step takes, and decoding need not wait for that.
        session = self.fleet.sessions.get(message.session)
        if session is None:
            raise Refused(f"there is no session {message.session} here, or it has ended: say hello first")
        with self._turns.of(session.number):
            return self._within(session, message, alive)

    def _within(self, session: Session, message: Message, alive: Callable[[], bool]) -> AnyMessage:
        """The answer to a message of `session`."""
        request: Any = messages.parse(message)
        work: Any = None
        if isinstance(request, Codebook):
            return patch_tables(self.setup, session, request)
        if isinstance(request, Evaluate):
            with self._lock:
                self._gate.heard(session)
            return evaluate(self.setup, session, request, self._coder, self._lock)
        if isinstance(request, Bye):
            with self._lock:
                # It may have ended since it was looked up.
                if session.number in self.fleet.sessions:
                    self._end(session, finished=True)
            return Ack(session.number, message.step)
        if isinstance(request, Feature):
            again = training.repeated(session, request)
            if again:
                return again
            with self._coder:
                work = training.take(self.setup, session, request, self._watch is not None)
        elif isinstance(request, Update):
            with self._coder:
                work = self.rounds.take(session, request)
        with self._lock:
            if isinstance(request, Tested) and session.missed is not None:
                self._gate.heard(session)
                return missed(session, request)
            reply: AnyMessage | training.Learned = self._gate.wait(Ticket(message.kind, session, request, alive, work))
        if isinstance(reply, training.Learned):
            with self._coder:
                return training.answer(self.setup, reply)
        return reply

    def _act(self, kind: str, tickets: list[Ticket]) -> None:
        """Answers tickets of one kind together, with the lock held."""
        {"hello": self._welcome, "feature": self._train, "update": self._round, "tested": self._tested}[kind](tickets)

    def _welcome(self, tickets: list[Ticket]) -> None:
        new = []
        for ticket in tickets:
            self.fleet.joined += 1
            session = Session.begin(self.fleet.joined, ticket.request, self.setup)
            self.fleet.join(session)
            new.append((ticket, session))
            self.on_event(events.joined(session))
        if self.fleet.steps_per_epoch is None:
            self.fleet.begin(self._patience)
        self.rounds.rest(self.fleet)
        for ticket, session in new:
            ticket.reply = welcome(self.setup, self.fleet, self.rounds, session)

    def _train(self, tickets: list[Ticket]) -> None:
        self.fleet.short_steps += not self._gate.complete
        outcomes = training.train(self.setup, self.fleet, self._watch, [ticket.work for ticket in tickets])
        for ticket, learned in zip(tickets, outcomes, strict=True):
            assert ticket.session is not None
            verdict = self._watch.verdict(ticket.session.device) if self._watch else None
            if verdict is None:
                ticket.reply = learned
                self._warn(ticket.session, learned.warning)
            else:
                ticket.error = Quarantined(f"{ticket.session.device} is in quarantine: {verdict}")
                self._quarantine(ticket.session, verdict)

    def _round(self, tickets: list[Ticket]) -> None:
        entries = [(ticket.session, ticket.request, ticket.work) for ticket in tickets if ticket.session]
        closed = close_round(self.fleet, self.rounds, entries)
        for ticket, (session, update, _) in zip(tickets, entries, strict=True):
            ticket.reply = closed.replies.get(session.number)
            if ticket.reply is None:
                ticket.request, ticket.work = update._replace(images=0, update=b""), None
            elif update.test:
                session.missed = None
                self._gate.test(session)
        if self.rounds.policy.every:
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
        for late in self._gate.end_test(sessions):
            late.missed = tally_message(late, epoch, test, best)

    def _warn(self, session: Session, warning: str) -> None:
        """Tells of a warning when it is new."""
        if warning and warning != session.warning:
            self.on_event(events.warned(session, warning))
        session.warning = warning

    def _quarantine(self, session: Session, reason: str) -> None:
        """Ends `session`; nothing more is learned from its device."""
        self.fleet.quarantined[session.device] = reason
        self.on_event(events.quarantined(session, reason))
        self._end(session, finished=False)

    def _keep(self, best: bool) -> None:
        if self._pairs is not None:
            front = {**self.setup.front, **self.rounds.weights} if self.rounds.policy.every else None
            self._pairs.keep(self.setup.back.state_dict(), front, self.rounds.tables, best)

    def _end(self, session: Session, finished: bool) -> None:
        self.fleet.leave(session, finished)
        if self._watch is not None:
            self._watch.forget(session.device)
        self._gate.leave(session)
        self.on_event(events.left(session, finished))


def error_message(error: EdgekitError, session: int, step: int) -> Message:
    """What the device is told of `error`; the text is cut where a header would overflow."""
    return messages.pack(Error(session, step, error.exit_code, str(error)[:4000]))

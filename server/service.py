"""Service: the server's answer to every message, without sockets. Sessions begin and end here.

::

    hello --> a new Session --> welcome
    codebook, evaluate --> its session --> handlers/ --> ack, result
    feature --> steps.py --> gate.py, until the other devices are there --> run.py --> handlers/ --> gradient
    update, tested, saved --> the same without steps.py, and rounds.py
    bye, or a line that broke and did not come back --> the session ends

Each device's messages come in a thread of its own. Three things keep the threads apart:

- The lock is held by who touches what devices share: the fleet, the gate, the rounds, the watch, and the back half.
- A session is its thread's while a message has its turn, from when it comes until the reply is there. So its stream
  and tables need no lock. While the message waits at the gate, who holds the lock may change the session.
- One thread at a time codes or decodes (`edgekit.server.coder`), while another may train. Nobody waits for the lock
  who holds the coder.
"""

import contextlib
from collections.abc import Callable
from threading import Condition
from typing import Any

from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.errors import EdgekitError, Refused, TransportError
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import (
    NO_LIFE,
    Ack,
    AnyMessage,
    Bye,
    Codebook,
    Error,
    Evaluate,
    Hello,
    Resume,
    Saved,
    Tested,
    Update,
)  # fmt: skip
from edgekit.server import events
from edgekit.server.checkpoints import Checkpoints, makes
from edgekit.server.coder import Coder
from edgekit.server.gate import Ticket
from edgekit.server.handlers.codebook import patch_tables
from edgekit.server.handlers.evaluation import evaluate, missed
from edgekit.server.handlers.health import pong
from edgekit.server.handlers.joining import check_hello
from edgekit.server.lines import Lines
from edgekit.server.pairs import Pairs
from edgekit.server.policy import Every, Patience, RoundPolicy
from edgekit.server.recovery import Recovery
from edgekit.server.run import Run
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.steps import Alive, Following, Steps
from edgekit.server.turns import Turns
from edgekit.server.watch import Watch

TAKEN = ("hello", "codebook", "evaluate", "feature", "update", "tested", "saved", "bye")
#: Nobody waits for anybody.
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
        checkpoints: Checkpoints | None = None,
        make_run: Callable[..., Run] = Run,
    ) -> None:
        self.setup = setup
        self._lock = Condition()
        self._coder = Coder()
        self._turns = Turns()
        self._lines = Lines(patience.away_s, self._gone)
        self._run = make_run(
            setup, on_event, patience, rounds, pairs, seed, watch, self._lines, self._lock, checkpoints
        )  # fmt: skip
        self.recovery = Recovery(self._run, self._lines, self._turns, self._lock)
        self.fleet, self.rounds, self._gate = self._run.fleet, self._run.rounds, self._run.gate
        #: Over which line a session talks: see `Lines`.
        self.use, self.holds, self.superseded = self._lines.use, self._lines.holds, self._lines.superseded
        #: What devices do, and which wait to join: threads may ask at any time, without the lock.
        self.doing, self.joining = self._run.doing, self._gate.names
        self.steps = Steps(setup, self._gate, self._coder, self._lock, watch is not None)

    @property
    def on_event(self) -> Callable[[dict[str, Any]], None]:
        """What is called with events."""
        return self._run.on_event

    @on_event.setter
    def on_event(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._run.on_event = on_event

    def handle(self, message: Message, alive: Alive = lambda: True, following: Following = lambda: None) -> Message:
        """The reply to a frame's content; an EdgekitError becomes an error message with its exit code and text.

        Messages that wait for other devices are given up when their line is not `alive`. What `following` gives, if
        anything, must be the next message of the session.
        """
        try:
            if message.kind == "ping":
                # Without the lock: behind a step of training the time in it would be old.
                return messages.pack(pong(self.setup, message, len(self.fleet.sessions)))
            return self._answer(message, alive, following)
        except EdgekitError as error:
            return error_message(error, message.session, message.step)

    def resume(self, message: Message, line: object) -> list[Message]:
        """The answers to a resume message that came over `line`: over it the session goes on, and over no other."""
        try:
            request = messages.parse(message)
            assert isinstance(request, Resume)
            if request.life == NO_LIFE:
                self.recovery.go_back_for(request)
            with self._lock:
                self.recovery.wait()
                self._lines.take(request, line)
                # A message of the line before that waits gives up.
                self._lock.notify_all()
            self._settle(request.session, line)
            resumed, lost = self._lines.lost(request, line)
        except EdgekitError as error:
            # The session may have been taken from a line that holds: it is this one's to end it.
            self.broke(message.session, line)
            return [error_message(error, message.session, message.step)]
        with self._lock:
            if (session := self.fleet.own(request.session)) is not None:
                self._gate.heard(session)
                self.on_event(events.back(session, len(lost)))
        return [messages.pack(resumed), *lost]

    def broke(self, number: int, line: object) -> None:
        """For session `number` whose `line` broke; nothing happens where it ended, or goes on over another one."""
        self._settle(number, line)
        with self._lock:
            session = self.fleet.own(number)
            if session is None or not self._lines.holds(number, line):
                return
            if self._lines.broke(number):
                self.on_event(events.away(session, self._lines.away_s))
            else:
                self._run.end(session, finished=False)

    def end(self, number: int) -> None:
        """Ends session `number`, whose device is not welcome any more; nothing happens where it has ended already."""
        with self._lock:
            session = self.fleet.own(number)
            if session is not None:
                self._run.end(session, finished=False)

    def keep_last(self) -> None:
        """Keeps the two halves as they are now, as the last pair; UsageError when they cannot be written."""
        with self._lock:
            self._run.keep_last()

    def ended(self) -> dict[str, Any]:
        """The "ended" event."""
        return events.ended(self.fleet, self.rounds, self._gate.all_known)

    def _goodbye(self, session: Session, request: Bye, alive: Alive) -> AnyMessage:
        """Ends `session`; with a checkpoint that says so, where it has done all that it planned and there are any."""
        with self._lock:
            # It may have ended since it was looked up.
            if self.fleet.own(session.number):
                if self._run.checkpoints is not None and not request.gives_up:
                    self._run.begin_checkpoint()
                    reply: AnyMessage = self._gate.wait(Ticket("saved", session, request, alive))
                    return reply
                self._run.end(session, finished=not request.gives_up)
        return Ack(session.number, 0)

    def _gone(self, number: int, breaks: int) -> None:
        """Ends session `number` if its device did not come back since its line broke for the `breaks`th time."""
        with self._lock:
            session = self.fleet.own(number)
            if session is not None and self._lines.is_away(number, breaks):
                self._run.end(session, finished=False)

    def _settle(self, number: int, line: object) -> None:
        """Answers what was taken in ahead, over a line that broke, if its step was made; else it comes again. `line`:
        the one that the session talks over now.
        """
        with self._turns.of(number, waits=True), contextlib.suppress(TransportError):
            session = self.fleet.own(number)
            if session is not None and session.ahead is not None and self._lines.holds(number, line):
                session.ahead.ticket.alive = _never
                self._kept(session, session.ahead.message, _never, lambda: None)

    def _answer(self, message: Message, alive: Alive, following: Following) -> Message:
        if message.kind not in TAKEN:
            raise Refused(f"a server takes {', '.join(TAKEN)} and ping messages, got {message.kind}")
        if message.kind == "hello":
            hello = messages.parse(message)
            assert isinstance(hello, Hello)
            with self._lock:
                self.recovery.wait()
                # One of its name was started anew, and remembers nothing.
                away = [each for each in self.fleet.here.values()
                        if each.device == hello.device and self._lines.is_away(each.number)]  # fmt: skip
                check_hello(self.setup, self.fleet, self.rounds, hello, self._gate.names(), away, self._run.checkpoints)
                for session in away:
                    self._run.end(session, finished=False)
                welcomed: AnyMessage = self._gate.wait(Ticket("hello", None, hello, alive))
            return messages.pack(welcomed)
        # Not under the lock: it is held for as long as a step takes, and decoding need not wait for that.
        own = self.fleet.own(message.session)
        if own is None:
            raise Refused(f"there is no session {message.session} here, or it has ended: say hello first")
        _check(alive)
        with self._turns.of(own.number):
            _check(alive)
            return self._kept(own, message, alive, following)

    def _kept(self, session: Session, message: Message, alive: Alive, following: Following) -> Message:
        """The answer to a message of `session`, kept. TransportError where the line broke before there was one."""
        try:
            answer = messages.pack(self._within(session, message, alive, following))
        except TransportError:
            raise
        except EdgekitError as error:
            answer = error_message(error, message.session, message.step)
        self._lines.keep(session.number, answer)
        return answer

    def _within(self, session: Session, message: Message, alive: Alive, following: Following) -> AnyMessage:
        """The answer to a message of `session`."""
        if message.kind == "feature":
            return self.steps.answer(session, message, alive, following)
        request: Any = messages.parse(message)
        work: Any = None
        if isinstance(request, Codebook):
            return patch_tables(self.setup, session, request)
        if isinstance(request, Evaluate):
            with self._lock:
                self._gate.heard(session)
            return evaluate(self.setup, session, request, self._coder, self._lock)
        if isinstance(request, Bye):
            return self._goodbye(session, request, alive)
        if isinstance(request, Saved) and not makes(self._run.checkpoints, request.step):
            # Too late: that checkpoint was given up.
            return Ack(session.number, 0)
        if isinstance(request, Update):
            with self._coder.decoding():
                work = self.rounds.take(session, request)
        with self._lock:
            if isinstance(request, Tested) and session.missed is not None:
                self._gate.heard(session)
                return missed(session, request)
            reply: AnyMessage = self._gate.wait(Ticket(message.kind, session, request, alive, work))
        return reply


def _never() -> bool:
    return False


def _check(alive: Alive) -> None:
    """TransportError for a message of a line that broke: its device sends it again over the next one."""
    if not alive():
        raise TransportError("the line broke before its message was answered")


def error_message(error: EdgekitError, session: int, step: int) -> Message:
    """What the device is told of `error`; the text is cut where a header would overflow."""
    return messages.pack(Error(session, step, error.exit_code, str(error)[:4000]))

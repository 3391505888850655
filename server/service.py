"""Service: the server's answer to every message, without sockets. Sessions begin and end here.

::

    hello --> a new Session --> welcome
    feature, evaluate, codebook --> its session --> handlers/ --> gradient, result, ack
    bye, or a line that broke --> the session ends
"""

from collections.abc import Callable
from threading import Lock
from typing import Any

from edgekit.errors import EdgekitError, Refused
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import Ack, AnyMessage, Bye, Error, Hello, Ping, Welcome
from edgekit.server.handlers.codebook import patch_tables
from edgekit.server.handlers.evaluation import evaluate
from edgekit.server.handlers.health import pong
from edgekit.server.handlers.training import train
from edgekit.server.session import Session
from edgekit.server.setup import Setup

#: Kind of message -> what answers it within a session.
HANDLERS: dict[str, Callable[[Setup, Session, Any], AnyMessage]] = {
    "feature": train,
    "codebook": patch_tables,
    "evaluate": evaluate,
}
TAKEN = ("hello", *HANDLERS, "bye")


class Service:
    """One back half, shared by all sessions, moved by their messages in the order they arrive.

    `on_event` is called, with the lock held, with ``{"event": "joined", "session", "device", "steps"}`` and
    ``{"event": "left", "session", "device", "steps": done, "finished": said bye}``.
    """

    def __init__(self, setup: Setup, on_event: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self.setup = setup
        self.on_event = on_event
        #: Sessions that said bye, and sessions whose line broke before.
        self.finished = 0
        self.lost = 0
        self._lock = Lock()
        self._sessions: dict[int, Session] = {}
        self._joined = 0

    def handle(self, message: Message) -> Message:
        """The reply to a frame's content; an EdgekitError becomes an error message with its exit code and text."""
        try:
            if message.kind == "ping":
                # Without the lock: behind a step of training the time in it would be old.
                return messages.pack(self._pong(message))
            with self._lock:
                return messages.pack(self._answer(message))
        except EdgekitError as error:
            return error_message(error, message.session, message.step)

    def left(self, session: int) -> None:
        """Ends `session`, whose line broke; nothing happens when it has ended already."""
        with self._lock:
            if session in self._sessions:
                self.lost += 1
                self._end(session, finished=False)

    def _answer(self, message: Message) -> AnyMessage:
        if message.kind not in TAKEN:
            raise Refused(f"a server takes {', '.join(TAKEN)} and ping messages, got {message.kind}")
        if message.kind == "hello":
            return self._join(message)
        if message.session not in self._sessions:
            raise Refused(f"there is no session {message.session} here, or it has ended: say hello first")
        session, request = self._sessions[message.session], messages.parse(message)
        if isinstance(request, Bye):
            self.finished += 1
            self._end(session.number, finished=True)
            return Ack(session.number, message.step)
        return HANDLERS[message.kind](self.setup, session, request)

    def _join(self, message: Message) -> Welcome:
        setup, hello = self.setup, messages.parse(message)
        assert isinstance(hello, Hello)
        if hello.bundle != setup.digest:
            raise Refused(
                f"the device's bundle is {hello.bundle[:64]}, the server's {setup.digest}: give both the same bundle "
                "folder"
            )
        self._joined += 1
        self._sessions[self._joined] = Session.begin(self._joined, hello.device, hello.steps, setup)
        self.on_event({"event": "joined", "session": self._joined, "device": hello.device, "steps": hello.steps})
        codec, optimizer = setup.calibrator.codec, setup.optimizer
        return Welcome(
            self._joined, codec.codec_id, codec.config, setup.calibrator.masked, optimizer.name, optimizer.lr,
            optimizer.momentum, optimizer.weight_decay, setup.schedule,
            setup.noise_filling is not None and setup.noise_filling.asks,
        )  # fmt: skip

    def _pong(self, message: Message) -> AnyMessage:
        ping = messages.parse(message)
        assert isinstance(ping, Ping)
        return pong(self.setup, ping, len(self._sessions))

    def _end(self, number: int, finished: bool) -> None:
        session = self._sessions.pop(number)
        self.on_event(
            {"event": "left", "session": number, "device": session.device, "steps": session.step, "finished": finished}
        )


def error_message(error: EdgekitError, session: int, step: int) -> Message:
    """What the device is told of `error`; the text is cut where a header would overflow."""
    return messages.pack(Error(session, step, error.exit_code, str(error)[:4000]))

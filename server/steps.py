"""Steps: the answers to feature messages. While a gradient is coded, the session's next batch waits for its step.

::

    batch n    take -> gate: the joint step -> remember ---------> code the gradient -> its answer
    batch n+1                                  take -> gate: the joint step -> ...

So a back half need not rest while gradients are coded, where devices send a batch before they have the gradient of the
one before (`edgekit run --in-flight 2`).
"""

import time
from collections.abc import Callable
from threading import Condition
from typing import NamedTuple

from edgekit.errors import EdgekitError
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import Feature, Gradient
from edgekit.server.coder import Coder
from edgekit.server.gate import Gate, Ticket
from edgekit.server.handlers import training
from edgekit.server.session import Session
from edgekit.server.setup import Setup

#: Whether the line of a message still holds.
Alive = Callable[[], bool]
#: The session's next feature message, where it is there.
Following = Callable[[], Message | None]


class Ahead(NamedTuple):
    """A batch that waits for its step, or soon will; it may be of a message whose turn has not come."""

    message: Message
    ticket: Ticket
    #: When it was taken, by `time.perf_counter`.
    came: float


class Steps:
    """`lock` is the service's, which is held by who has to do with the `gate`. `watched`: whether there is a watch."""

    def __init__(self, setup: Setup, gate: Gate, coder: Coder, lock: Condition, watched: bool) -> None:
        self.setup, self._gate, self._coder, self._lock, self._watched = setup, gate, coder, lock, watched
        #: Called with each batch that was answered, its answer, and the seconds since it came.
        self.on_batch: Callable[[training.Learned, Gradient, float], None] | None = None

    def answer(self, session: Session, message: Message, alive: Alive, following: Following) -> Gradient:
        """The gradient for `message`."""
        ahead, session.ahead = session.ahead, None
        if ahead is None:
            ahead = self._take(session, message, alive)
        with self._lock:
            learned = self._gate.wait(ahead.ticket)
        training.remember(learned)
        self._take_ahead(session, following(), alive)
        with self._coder.coding():
            gradient = training.answer(self.setup, learned)
        if self.on_batch is not None:
            self.on_batch(learned, gradient, time.perf_counter() - ahead.came)
        return gradient

    def _take(self, session: Session, message: Message, alive: Alive) -> Ahead:
        """The batch of `message`. Refused or PayloadError when it cannot be taken."""
        came = time.perf_counter()
        request = messages.parse(message)
        assert isinstance(request, Feature)
        with self._coder.decoding():
            work = training.take(self.setup, session, request, self._watched)
        return Ahead(message, Ticket("feature", session, request, alive, work), came)

    def _take_ahead(self, session: Session, message: Message | None, alive: Alive) -> None:
        if message is not None:
            try:
                ahead = self._take(session, message, alive)
                with self._lock:
                    self._gate.enter(ahead.ticket)
                session.ahead = ahead
            except EdgekitError:
                # It is taken again in its turn, and refused then.
                return

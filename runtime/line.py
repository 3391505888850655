"""Reconnecting: a session that outlives its line. A broken line is replaced, and nothing is lost or done twice.

::

    message n -----------> server
              <----------- answer n          both ends count; what does not come in order is a broken line
    ... the line breaks; a new one ...
    Resume (answers that came: r) --------->
              <-------------------- Resumed (messages that were answered: p), then answers r+1 ... p
    messages p+1 ... again --------------->
              <-------------------- or Resumed (back to the save of this label): both count from 0
"""

import random
import time
from collections import deque
from types import TracebackType
from typing import Any, Callable, Deque, Dict, Optional, Tuple, Type

from edgekit.errors import EdgekitError, IdentityError, PayloadError, Quarantined, Refused, TransportError
from edgekit.line import frame
from edgekit.line.frame import HEAD_SIZE, Message
from edgekit.line.messages import NO_LIFE, NOT_BACK, Ack, Bye, Resume, Resumed
from edgekit.runtime.transport import Silent, Transport

Event = Dict[str, Any]
#: How long a device tries to bring a broken line back, unless it is told.
RECONNECT_S = 60.0
#: Seconds before the first try, and the longest pause between two. Each is drawn between half and all of twice the one
#: before, so that devices that lost one server do not come back all at once.
FIRST_S, LONGEST_S = 0.2, 10.0
#: Lines in a row that broke without an answer, each so many seconds after it was opened: the fault is not the line's.
FRUITLESS, QUICK_S = 5, 10.0


class WentBack(TransportError):
    """The run has gone back to a save: so must this device, to its save of `label`."""

    def __init__(self, label: int) -> None:
        super().__init__("the run went back to save {}".format(label))
        self.label = label


class Reconnecting(Transport):
    """The line `first`, and those that `connect` opens, one after another, each when the one before broke.

    A line that does not come back within `give_up_s` seconds is a TransportError; with 0 each broken line is. `tell`
    gets the events "broken" and "resumed". As a context it ends with its line; the server is told when that is not for
    good. `send` and `expect` raise WentBack where the server, or another device, was lost and has come back.
    """

    def __init__(
        self, connect: Callable[[], Transport], first: Transport, give_up_s: float, tell: Callable[[Event], None]
    ) -> None:
        super().__init__(first.meter)
        self._connect = connect
        self._give_up_s = give_up_s
        self._tell = tell
        self._line: Optional[Transport] = first
        #: What a new line begins with; without a token there is no session yet to go on with.
        self._resume = Resume(0, 0, "")
        self._unanswered: Deque[bytes] = deque()
        #: When the line was opened, and how many before it broke soon and without an answer.
        self._opened = time.monotonic()
        self._fruitless = 0

    def begin(self, session: int, token: str) -> None:
        self._resume = Resume(session, 0, token)
        if not token:
            # The server does not take it back.
            self._give_up_s = 0.0

    def go_on(self, session: int, token: str) -> int:
        """For a device that was started anew: takes `session` up again. Returns the label of the save to go on from.

        Refused where it had come to its end, or there is no such session any more; the line is a new one then.
        """
        self._resume = Resume(session, 0, token, NO_LIFE)
        if self._line is None or not self._give_up_s:
            raise Refused("a session is taken up again with --reconnect above 0 alone")
        try:
            resumed = self._ask(self._line)
            if resumed.over:
                raise Refused("session {} had come to its end".format(session))
        except Refused:
            # Its stream has ended.
            self.close()
            self._resume, self._line = Resume(0, 0, ""), self._connect()
            raise
        return resumed.back

    @property
    def comes_back(self) -> bool:
        return self._give_up_s > 0

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def __enter__(self) -> "Reconnecting":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            # Of a line that broke, or a session that the server ended, there is nothing to say.
            lost = self._line is None or isinstance(error, (TransportError, Quarantined, IdentityError))
            if error is not None and self._resume.token and not lost:
                self._give_up()
        except EdgekitError as late:
            self._tell({"event": "not_told", "reason": str(late)})
        finally:
            self.close()

    @property
    def _number(self) -> int:
        return self._resume.step + len(self._unanswered) + 1 if self._resume.token else 0

    def _send(self, data: bytes) -> None:
        assert self._line is not None
        self._unanswered.append(data)
        self._line._send(data)

    def _recv(self, patient: bool) -> bytes:
        assert self._line is not None
        return self._line._recv(patient)

    def _receive(self, patient: bool) -> Tuple[Message, int]:
        number = self._resume.step + 1 if self._resume.token else 0
        while True:
            try:
                data = self._recv(patient)
                message = frame.decode(data, number)
                break
            except Silent:
                raise
            except (TransportError, PayloadError) as error:
                # A frame that was damaged on the way is a broken line too.
                self._bring_back(error)
        self._fruitless = 0
        self._unanswered.popleft()
        self._resume = self._resume._replace(step=self._resume.step + 1)
        return message, len(data)

    def _bring_back(self, why: EdgekitError) -> None:
        """Another line that the session goes on over; the error `why` where there is none in time."""
        self.close()
        self._fruitless = self._fruitless + 1 if time.monotonic() - self._opened < QUICK_S else 0
        if not self._give_up_s or self._fruitless > FRUITLESS:
            raise why
        self._tell({"event": "broken", "reason": str(why), "seconds": self._give_up_s})
        begun, pause = time.monotonic(), FIRST_S
        lost, back = 0, NOT_BACK
        while self._line is None:
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_S)
            try:
                lost, back = self._open()
            except (TransportError, PayloadError, Refused) as error:
                if time.monotonic() - begun >= self._give_up_s:
                    told = "{}; it did not come back within {:.0f} s: {}"
                    raise TransportError(told.format(why, self._give_up_s, error)) from None
        if back != NOT_BACK:
            self._tell({"event": "resumed", "lost": 0, "after_s": time.monotonic() - begun})
            raise WentBack(back)
        for number, data in enumerate(self._unanswered, self._resume.step + 1):
            if number > self._resume.step + lost:
                kind = frame.decode(data, number if self._resume.token else 0).kind
                self.meter.count("up", kind, len(data))
                self._line._send(data)
        self._tell({"event": "resumed", "lost": lost, "after_s": time.monotonic() - begun})

    def _open(self) -> Tuple[int, int]:
        """Opens a line over which the session goes on; how many answers come again, and the save to go back to."""
        line = self._connect()
        lost, back = 0, NOT_BACK
        try:
            if self._resume.token:
                resumed = self._ask(line)
                lost, back = resumed.step - self._resume.step, resumed.back
        except EdgekitError:
            line.close()
            raise
        self._line, self._opened = line, time.monotonic()
        return lost, back

    def _ask(self, line: Transport) -> Resumed:
        line.send(self._resume)
        resumed = line.expect(Resumed)
        if resumed.back != NOT_BACK:
            self._unanswered.clear()
            self._resume = self._resume._replace(step=0, life=resumed.life)
            return resumed
        if self._resume.life == NO_LIFE and not resumed.over:
            raise PayloadError("resumed message: it does not say which save to go on from", HEAD_SIZE)
        lost = resumed.step - self._resume.step
        if not 0 <= lost <= len(self._unanswered):
            least = self._resume.step
            told = "resumed message: {} messages were answered, expected {} to {}"
            raise PayloadError(told.format(resumed.step, least, least + len(self._unanswered)), HEAD_SIZE)
        return resumed

    def _give_up(self) -> None:
        """Tells the server that nobody is to wait for this device.

        Over a line of its own: over the present one that would be read after all messages that still wait there.
        """
        self.close()
        self._give_up_s = 0.0
        for _ in range(self._open()[0]):
            # Errors among them, too: they are answers that nobody waits for any more.
            self._receive(patient=False)
        # The others were never answered.
        self._unanswered.clear()
        self.send(Bye(self._resume.session, True))
        self.expect(Ack)

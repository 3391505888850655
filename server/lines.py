"""Lines: over which line each session talks, and what it needs to go on over another one when that breaks.

::

    each answer      --keep--> the latest answers, by their number
    a broken line    --broke--> the session is away, and ends unless it comes back in time
    Resume           --take--> the line before is deaf from now on --lost--> the answers that did not arrive

Every message of a session has one answer, in order: both ends count them, and the numbers do not travel.
"""

import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock, Timer
from typing import Any

from edgekit.errors import Refused, TransportError
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import NO_LIFE, NOT_BACK, Ack, Resume, Resumed
from edgekit.server.session import Session

#: Answers that are kept of a session, at most.
MOST = 256
#: The line of a session that has gone back, and whose device has not come yet.
NOBODY = object()
#: Sessions that ended, whose last answers are still known: the answer to a goodbye may be lost too.
ENDED = 64


@dataclass(eq=False)
class Held:
    """What is known of one session's line."""

    token: str
    #: The latest answers, as many as may be on their way.
    latest: deque[Message]
    #: The line in use; None before it is known.
    line: Any = None
    #: Messages answered so far.
    answered: int = 0
    #: Whether the session ended because its device had done all that it planned.
    finished: bool = False
    #: The number of the latest break of its line, among all lines'.
    breaks: int = 0
    #: Where its device goes back to a save: the save's label, and the life that begins with that. In that life both
    #: sides count anew.
    back: int = NOT_BACK
    life: int = 0
    #: Counts down while the session is away.
    timer: Timer | None = field(default=None, repr=False)


class Lines:
    """The lines of all sessions. Threads may ask at any time.

    A device that is away for more than `away_s` seconds is not waited for any longer; with 0 none may come back. Then
    `on_gone` is called, in a thread of its own, with the session's number and how often its line has broken.
    """

    def __init__(self, away_s: float, on_gone: Callable[[int, int], None]) -> None:
        self.away_s = away_s
        self._on_gone = on_gone
        self._held: dict[int, Held] = {}
        self._ended: OrderedDict[int, Held] = OrderedDict()
        #: Sessions that began after the checkpoint to which all went back.
        self._lost: set[int] = set()
        self._breaks = 0
        self._lock = Lock()

    def begin(self, number: int, window: int) -> str:
        """Begins session `number`, whose device has at most `window` messages without an answer, 0 where it does not
        come back. Returns what the device has to show when it does, "" where it may not.
        """
        token = secrets.token_hex(8) if window and self.away_s else ""
        with self._lock:
            self._held[number] = Held(token, deque(maxlen=min(window, MOST)))
        return token

    def end(self, number: int, finished: bool) -> None:
        """Ends session `number`; the last answers of one that `finished` are kept for a while."""
        with self._lock:
            held = self._held.pop(number)
            _stop(held)
            held.finished = finished
            self._ended[number] = held
            if len(self._ended) > ENDED:
                self._ended.popitem(last=False)

    def go_back(self, label: int, sessions: Sequence[Session], ended: Mapping[int, str]) -> None:
        """All goes back to the checkpoint `label`, with `sessions`; `ended`: tokens of those that had finished.

        Every device is away until it resumes.
        """
        with self._lock:
            for held in self._held.values():
                _stop(held)
            self._lost.update(self._held.keys() - {session.number for session in sessions})
            self._held.clear()
            for number, token in ended.items():
                held = self._ended[number] = Held(token, deque(maxlen=1), NOBODY, finished=True, life=_life())
                held.latest.append(messages.pack(Ack(number)))
            for session in sessions:
                window = min(session.hello.window, MOST)
                held = Held(session.token, deque(maxlen=window), NOBODY, back=label, life=_life())
                self._held[session.number] = held
                self._wait(session.number, held)

    def give_up(self) -> None:
        """No line that there is holds any more."""
        with self._lock:
            for held in self._held.values():
                held.line = NOBODY

    def untouched(self, number: int) -> bool:
        """Whether session `number` has gone back, and its device has not come since."""
        with self._lock:
            held = self._held.get(number)
            return held is not None and held.line is NOBODY and held.back != NOT_BACK

    def superseded(self, number: int, line: object) -> bool:
        """Whether session `number` goes on, and not over `line`; or was lost as all went back."""
        with self._lock:
            held = self._held.get(number)
            return number in self._lost or (held is not None and held.line not in (None, line))

    def tokens_of_ended(self) -> dict[int, str]:
        """The tokens of the sessions that finished lately, by number."""
        with self._lock:
            return {number: held.token for number, held in self._ended.items() if held.finished}

    def use(self, number: int, line: object) -> None:
        """Says that session `number` talks over `line`; one of which nobody says it goes on as long as it lives."""
        with self._lock:
            if number in self._held:
                self._held[number].line = line

    def holds(self, number: int, line: object) -> bool:
        """Whether `line` is that of session `number`, and not one that broke before."""
        with self._lock:
            held = self._held.get(number)
            return held is not None and held.line in (None, line)

    def is_away(self, number: int, breaks: int | None = None) -> bool:
        """Whether the line of session `number` broke, for the `breaks`th time, and the device has not come back."""
        with self._lock:
            held = self._held[number]
            return held.timer is not None and breaks in (None, held.breaks)

    def away(self) -> list[int]:
        """The sessions whose devices have not come back yet."""
        with self._lock:
            return [number for number, held in self._held.items() if held.timer is not None]

    def keep(self, number: int, answer: Message) -> None:
        """Counts `answer` to the latest message of session `number`, which may have ended with it, and keeps it."""
        with self._lock:
            held = self._held.get(number) or self._ended[number]
            held.answered += 1
            held.latest.append(answer)

    def broke(self, number: int) -> bool:
        """For a session whose line broke: whether its device may come back, for which it has time from now on."""
        with self._lock:
            held = self._held[number]
            if not held.token:
                return False
            self._wait(number, held)
            return True

    def take(self, request: Resume, line: object) -> None:
        """The session goes on over `line`, and over no other. TransportError where there is none to go on with."""
        with self._lock:
            held = self._held.get(request.session) or self._ended.get(request.session)
            if held is None or not held.token or not hmac.compare_digest(held.token.encode(), request.token.encode()):
                # One that was started again by itself begins anew.
                raise (Refused if request.life == NO_LIFE else TransportError)(
                    f"there is no session {request.session} of this device here: the server was started anew, start "
                    "the device again"
                )
            if not (held.finished or request.session in self._held):
                raise (Refused if request.life == NO_LIFE else TransportError)(
                    f"session {request.session} ended, perhaps because its device was away for too long: start the "
                    f"device again. `edgekit serve --reconnect` is how many seconds it has ({self.away_s:g} now)"
                )
            _stop(held)
            held.line = line

    def lost(self, request: Resume, line: object) -> tuple[Resumed, list[Message]]:
        """The answer to `request`, and the answers that did not arrive; after `take`, and while none of the session's
        messages is being answered.

        Refused where they are not known any more; TransportError where another line took the session meanwhile.
        """
        with self._lock:
            held = self._held.get(request.session) or self._ended[request.session]
            if held.line is not line:
                raise TransportError(f"session {request.session} went on over another line meanwhile")
            if held.back != NOT_BACK and request.life != held.life:
                return Resumed(request.session, 0, held.back, held.life), []
            if held.finished and request.life == NO_LIFE:
                return Resumed(request.session, 0, over=True), []
            if held.finished and held.life:
                # Of the time before the server was lost only the answer to the goodbye can be wanted.
                return Resumed(request.session, request.step + 1), list(held.latest)
            if request.life == NO_LIFE:
                raise Refused(f"session {request.session} is in no checkpoint of the run: begin anew")
            missing = held.answered - request.step
            if not 0 <= missing <= len(held.latest):
                raise Refused(
                    f"the device has {request.step} answers of session {request.session}, {held.answered} were given "
                    f"and the last {len(held.latest)} are known: start the device again"
                )
            return Resumed(request.session, held.answered), list(held.latest)[len(held.latest) - missing :]

    def _wait(self, number: int, held: Held) -> None:
        """The session is away from now on, and is waited for."""
        _stop(held)
        self._breaks += 1
        held.breaks = self._breaks
        held.timer = Timer(self.away_s, self._on_gone, (number, held.breaks))
        held.timer.daemon = True
        held.timer.start()


def _life() -> int:
    """The number of a life, other than all before."""
    return 1 + secrets.randbelow(1 << 31)


def _stop(held: Held) -> None:
    """The session is not away, or is no more."""
    if held.timer is not None:
        held.timer.cancel()
        held.timer = None

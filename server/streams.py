"""Streams: what becomes of the frames of each device's stream. A stream is one session, from hello to its end.

::

    stream --one too many--> error, end
      | pings are answered
    hello, or resume after another stream broke --none within `HELLO_S`, or refused--> error, end
      | messages of this session, however seldom; TCP sees to devices that are gone (`edgekit.line.channel`)
    bye, quarantine, a frame that does not parse, a message of another session --> answer, end
    a certificate that does not count, or no longer (`edgekit.server.door`) --> error, end
"""

import contextlib
import time
from collections.abc import Iterator
from threading import Lock
from typing import Any

import grpc

from edgekit.errors import EdgekitError, IdentityError, PayloadError, Refused
from edgekit.line.frame import Message, decode, encode
from edgekit.server.door import Anybody, Door
from edgekit.server.incoming import Incoming
from edgekit.server.service import Service, error_message
from edgekit.server.session import Session

#: The messages that a session begins with on a stream.
BEGIN = ("hello", "resume")
#: Seconds that a stream has to say hello. A device says it as soon as it is connected.
HELLO_S = 30.0
#: Streams beyond those of devices that are told why they are refused; any more are refused without words.
REFUSED_AT_ONCE = 8


class Streams:
    """Streams of up to `most` devices at a time, each answered in a thread of its own."""

    def __init__(self, service: Service, most: int, door: Door | None = None) -> None:
        self._service = service
        self._door = door
        self._most = most
        self._open = 0
        self._lock = Lock()

    def answers(self, frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """A frame for every frame of one stream; the last may be an error, which says why the stream ends."""
        with self._counted() as number:
            try:
                with self._entered(context) as guest:
                    yield from self._session(frames, context, guest, full=number > self._most)
            except (PayloadError, Refused) as error:
                yield encode(error_message(error, 0, 0))

    def close(self) -> None:
        """Lets go of the door, once all streams have ended."""
        if self._door is not None:
            self._door.close()

    def _entered(self, context: Any) -> contextlib.AbstractContextManager[Anybody]:
        """Whose stream it is, as long as it is open."""
        if self._door is None:
            return contextlib.nullcontext(Anybody(context))
        return self._door.entered(context, self._service.end)

    def _session(self, frames: Iterator[bytes], context: Any, guest: Anybody, full: bool) -> Iterator[bytes]:
        """The answers of a stream. Where the server is `full`, only who comes back to its place is taken in."""
        incoming = Incoming(frames)
        line = Line(self._service, guest, incoming)
        until = time.monotonic() + HELLO_S
        try:
            guest.check()
            while True:
                frame = _first(incoming, until) if line.session is None else incoming.take()
                if frame is None:
                    return
                message = line.following or _decoded(frame, line.number, context)
                guest.check()
                if message.kind in BEGIN and line.session is not None:
                    raise Refused(
                        f"this stream has session {line.session}: another {message.kind} takes a stream of its own"
                    )
                if message.kind not in (*BEGIN, "ping") and message.session != line.session:
                    raise Refused(f"there is no session {message.session} on this stream: say hello first")
                if full and line.session is None and message.kind != "resume":
                    raise Refused(
                        f"this server takes {self._most} devices at a time, and as many are connected: try again when "
                        f"one has left, or start the server with --devices {self._most + 1} or more"
                    )
                if message.kind == "hello" and self._kept(message.header.get("device")) >= self._most:
                    raise Refused(
                        f"this server takes {self._most} devices at a time, and keeps places for those whose lines "
                        "broke: try again when one has been away for --reconnect seconds"
                    )
                for number, reply in line.answers(message):
                    yield encode(reply, number)
                if message.kind in BEGIN and line.session is None:
                    return
                if line.session is not None and not self._service.holds(line.session, line):
                    for number, reply in line.unsaid():
                        yield encode(reply, number)
                    return
        except IdentityError as error:
            # With the number that the device waits for: any other would be a damaged frame to it.
            yield encode(error_message(error, 0, 0), line.number)
        finally:
            incoming.close()
            line.broke()

    def _kept(self, device: object) -> int:
        """Sessions of other devices than `device`, also of those that are away."""
        return sum(each.device != device for each in self._service.fleet.here.values())

    @contextlib.contextmanager
    def _counted(self) -> Iterator[int]:
        """How many streams are open with this one, which is one of them inside."""
        with self._lock:
            self._open += 1
            number = self._open
        try:
            yield number
        finally:
            with self._lock:
                self._open -= 1


class Line:
    """One stream as its session sees it."""

    def __init__(self, service: Service, guest: Anybody, incoming: Incoming) -> None:
        self._service = service
        self._guest = guest
        self._incoming = incoming
        self._own: Session | None = None
        #: The next message, where it has been looked at.
        self.following: Message | None = None
        #: The session; None before there is one.
        self.session: int | None = None
        #: Number of the next message; 0 where the session does not go on over another line when this one breaks.
        self.number = 0

    def answers(self, message: Message) -> list[tuple[int, Message]]:
        """The answers to `message` with their numbers: one, and after resumed those that had been lost before."""
        if message.kind == "hello":
            self._guest.claim(message.header.get("device"))
        if message.kind == "resume":
            known = self._service.fleet.own(message.session)
            if known is not None:
                self._guest.claim(known.device)
            resumed, *lost = self._service.resume(message, self)
            if resumed.kind == "resumed":
                self.session = self._guest.session = resumed.session
                self._own, self.number = self._service.fleet.own(resumed.session), resumed.step + 1
            return [(0, resumed), *enumerate(lost, self.number - len(lost))]
        self.following = None
        number, reply = self.number, self._service.handle(message, self._holds, self._look)
        if self.session is not None and self._service.superseded(self.session, self):
            # The session has gone back, or goes on over another line: this one ends without words.
            return []
        if reply.kind == "welcome":
            self._use(reply.session)
            self.number = int("token" in reply.header)
        elif self.number:
            self.number += 1
        # It may be turned out while its message waits, which only then ends.
        if self._guest.refused:
            reply = error_message(IdentityError(self._guest.refused), 0, 0)
            if self.session is not None:
                self._service.end(self.session)
        return [(number, reply)]

    def unsaid(self) -> list[tuple[int, Message]]:
        """The error of a batch that was taken in ahead, where that ended the session."""
        ahead = self._own.ahead if self._own is not None else None
        if ahead is None or not isinstance(ahead.ticket.error, EdgekitError):
            return []
        return [(self.number, error_message(ahead.ticket.error, ahead.message.session, ahead.message.step))]

    def broke(self) -> None:
        """Says so to the service, where the session is not over."""
        if self.session is not None:
            self._service.broke(self.session, self)

    def _use(self, session: int) -> None:
        self.session = self._guest.session = session
        self._own = self._service.fleet.own(session)
        self._service.use(session, self)

    def _look(self) -> Message | None:
        """The next message, where it is there and its session trains on."""
        frame = self._incoming.waiting()
        try:
            message = decode(frame, self.number and self.number + 1) if frame is not None else None
        except PayloadError:
            # It is read again in its turn, and refused then.
            return None
        if message is not None and message.kind == "feature" and message.session == self.session:
            self.following = message
        return self.following

    def _holds(self) -> bool:
        """Whether the session talks over this line, and the line has not broken."""
        return self._guest.alive() and (self.session is None or self._service.holds(self.session, self))


def _first(incoming: Incoming, until: float) -> bytes | None:
    """The next frame, None at their end; Refused when it is not there by `until`."""
    try:
        return incoming.take(max(until - time.monotonic(), 0.0))
    except TimeoutError:
        raise Refused(f"no hello within {HELLO_S:g} s: the stream is closed, others may need its place") from None


def _decoded(frame: bytes, number: int, context: Any) -> Message:
    """The message of `frame`. One that does not parse ends the stream: in words, or so that the device sends it again
    over another line, where it does that.
    """
    try:
        return decode(frame, number)
    except PayloadError as error:
        if number:
            context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        raise

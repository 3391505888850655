"""Streams: what becomes of the frames of each device's stream. A stream is one session, from hello to its end.

::

    stream --one too many--> error, end
      | pings are answered
    hello --none within `HELLO_S`, or refused--> error, end
      | messages of this session, however seldom; TCP sees to devices that are gone (`edgekit.line.channel`)
    bye, quarantine, a frame that does not parse, a message of another session --> answer, end
"""

import contextlib
import time
from collections.abc import Iterator
from concurrent import futures
from threading import Lock
from typing import Any

from edgekit.errors import PayloadError, Refused
from edgekit.line.frame import decode, encode
from edgekit.server.service import Service, error_message

#: Seconds that a stream has to say hello. A device says it as soon as it is connected.
HELLO_S = 30.0
#: Streams beyond those of devices that are told why they are refused; any more are refused without words.
REFUSED_AT_ONCE = 8


class Streams:
    """Streams of up to `most` devices at a time, each answered in a thread of its own."""

    def __init__(self, service: Service, most: int) -> None:
        self._service = service
        self._most = most
        self._open = 0
        self._lock = Lock()
        #: Where first frames are waited for: a wait for gRPC's next frame cannot be given up by the thread that waits.
        self._first = futures.ThreadPoolExecutor(most, thread_name_prefix="hello")

    def answers(self, frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """A frame for every frame of one stream; the last may be an error, which says why the stream ends."""
        with self._counted() as number:
            try:
                if number > self._most:
                    raise Refused(
                        f"this server takes {self._most} devices at a time, and as many are connected: try again when "
                        f"one has left, or start the server with --devices {self._most + 1} or more"
                    )
                yield from self._session(frames, context)
            except (PayloadError, Refused) as error:
                yield encode(error_message(error, 0, 0))

    def close(self) -> None:
        """Lets go of the threads, once all streams have ended."""
        self._first.shutdown(wait=False)

    def _session(self, frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """The answers of a stream that has its place."""
        number: int | None = None
        until = time.monotonic() + HELLO_S
        try:
            while True:
                frame = self._soon(frames, until) if number is None else next(frames, None)
                if frame is None:
                    return
                message = decode(frame)
                if message.kind == "hello" and number is not None:
                    raise Refused(f"this stream has session {number}: another hello takes a stream of its own")
                if message.kind not in ("hello", "ping") and message.session != number:
                    raise Refused(f"there is no session {message.session} on this stream: say hello first")
                reply = self._service.handle(message, context.is_active)
                if reply.kind == "welcome":
                    number = reply.session
                yield encode(reply)
                if message.kind == "hello" and number is None:
                    return
                if number is not None and number not in self._service.fleet.sessions:
                    return
        finally:
            if number is not None:
                self._service.left(number)

    def _soon(self, frames: Iterator[bytes], until: float) -> bytes | None:
        """The next of `frames`, None at their end; Refused when it is not there by `until`."""
        waiting = self._first.submit(next, frames, None)
        try:
            return waiting.result(max(until - time.monotonic(), 0.0))
        except futures.TimeoutError:
            raise Refused(f"no hello within {HELLO_S:g} s: the stream is closed, others may need its place") from None

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

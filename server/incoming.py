"""Incoming: the frames of one stream, read by a thread of their own, so that one may be looked at before its turn."""

from collections.abc import Iterator
from threading import Condition, Thread

import grpc


class Incoming:
    """`frames` in order, at most one of them read ahead; more wait on the line. `close` when no more are wanted."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._changed = Condition()
        self._next: bytes | None = None
        self._over = self._closed = False
        self._error: grpc.RpcError | None = None
        Thread(target=self._read, args=(frames,), name="incoming", daemon=True).start()

    def waiting(self) -> bytes | None:
        """The next frame, which stays the next; None where it is not there yet, or none comes any more."""
        with self._changed:
            return self._next

    def take(self, seconds: float | None = None) -> bytes | None:
        """The next frame, None at their end. TimeoutError when it is not there in `seconds`, RpcError after a cut."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._next is not None or self._over, seconds):
                raise TimeoutError(f"no frame within {seconds} s")
            frame, self._next = self._next, None
            self._changed.notify_all()
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def close(self) -> None:
        """Lets the thread end; it ends with its stream at the latest."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read(self, frames: Iterator[bytes]) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._next is None or self._closed)
                    if self._closed:
                        return
                frame = next(frames, None)
                if frame is None:
                    return
                with self._changed:
                    self._next = frame
                    self._changed.notify_all()
        except grpc.RpcError as error:
            # The stream was cut: `take` raises it.
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

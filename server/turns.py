"""Turns: a session answers one message at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from edgekit.errors import Refused


class Turns:
    """Which sessions are busy with a message. Threads may ask at any time."""

    def __init__(self) -> None:
        self._busy: set[int] = set()
        self._lock = Lock()

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """The turn of a message of session `number`. Refused while another one has it."""
        with self._lock:
            if number in self._busy:
                raise Refused(f"a message of session {number} still waits for its answer: one comes after another")
            self._busy.add(number)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(number)

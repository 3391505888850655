"""Turns: a session answers one message at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from edgekit.errors import Refused


class Turns:
    """Which sessions are busy with a message. Threads may ask at any time."""

    def __init__(self) -> None:
        self._busy: set[int] = set()
        self._changed = Condition()

    @contextmanager
    def of(self, number: int, waits: bool = False) -> Iterator[None]:
        """The turn of a message of session `number`. Where another one has it: Refused, or it `waits`."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: number not in self._busy)
            if number in self._busy:
                raise Refused(f"a message of session {number} still waits for its answer: one comes after another")
            self._busy.add(number)
        try:
            yield
        finally:
            with self._changed:
                self._busy.remove(number)
                self._changed.notify_all()

    def wait(self, number: int) -> None:
        """Returns when no message of session `number` has its turn."""
        with self._changed:
            self._changed.wait_for(lambda: number not in self._busy)

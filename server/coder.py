"""Coder: one thread at a time codes or decodes, and a batch that a step waits for goes before a gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class Coder:
    """Two threads that code would only take the interpreter from each other (docs/decisions.md)."""

    def __init__(self) -> None:
        lock = Lock()
        self._decoders, self._coders = Condition(lock), Condition(lock)
        self._busy = False
        #: Threads that wait to decode, and to code.
        self.waiting = (0, 0)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Inside, nobody else codes or decodes."""
        with self._decoders:
            self._count(1, 0)
            self._decoders.wait_for(lambda: not self._busy)
            self._count(-1, 0)
            self._busy = True
        yield from self._until_done()

    @contextmanager
    def coding(self) -> Iterator[None]:
        """The same; whoever wants to decode goes first."""
        with self._coders:
            self._count(0, 1)
            self._coders.wait_for(lambda: not (self._busy or self.waiting[0]))
            self._count(0, -1)
            self._busy = True
        yield from self._until_done()

    def _count(self, decoders: int, coders: int) -> None:
        self.waiting = (self.waiting[0] + decoders, self.waiting[1] + coders)

    def _until_done(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._coders:
                self._busy = False
                (self._decoders if self.waiting[0] else self._coders).notify()

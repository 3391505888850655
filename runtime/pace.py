"""Pace: how long a reply may take, from the bytes that are under way and the rate that the line has shown."""

from collections import deque
from typing import Deque, Tuple

#: Seconds that the server may take for a reply, beside what the line takes.
TIMEOUT_S = 300.0
#: Bytes per second: the line counts as no slower, and as no faster before it has carried anything.
SLOWEST = 2000.0
#: How much of what was seen before counts after another reply.
KEPT = 0.9


class Pace:
    """The frames under way, oldest first: each reply answers the oldest. Seconds are by one clock that never goes back.

    The rate is that of whole exchanges, the server's work among it. So it is too small rather than too large, and a
    reply has more time rather than less.
    """

    def __init__(self) -> None:
        self._under_way: Deque[Tuple[int, float]] = deque()
        self._bytes = self._seconds = self._last_s = 0.0
        self._largest = 0

    @property
    def rate(self) -> float:
        """Bytes per second, both ways together."""
        return max(self._bytes / self._seconds, SLOWEST) if self._seconds else SLOWEST

    @property
    def under_way(self) -> int:
        """Bytes of the frames that were sent and are not answered."""
        return sum(size for size, _ in self._under_way)

    @property
    def allowed_s(self) -> float:
        """Seconds that the next reply may take from now: `TIMEOUT_S`, and what the line needs for the bytes."""
        return TIMEOUT_S + (self.under_way + self._largest) / self.rate

    def sent(self, size: int, now_s: float) -> None:
        """A frame of `size` bytes goes out."""
        self._under_way.append((size, now_s))

    def replied(self, size: int, now_s: float, counts: bool = True) -> None:
        """A reply of `size` bytes came to the oldest frame; it `counts` unless it waited for other devices."""
        if not self._under_way:
            return  # An error that answers nothing: the server ends the stream.
        up, sent_s = self._under_way.popleft()
        if counts:
            seconds = now_s - max(sent_s, self._last_s)
            self._bytes = KEPT * self._bytes + up + size
            self._seconds = KEPT * self._seconds + max(seconds, 1e-6)
        self._last_s = now_s
        self._largest = max(self._largest, size)

"""Shaper: when bytes that are sent now have left the sender, and when they arrive. Arithmetic only, without a clock."""

import math
import random
from typing import Tuple


class Shaper:
    """One direction of a link, for bytes that wait in one queue: a token bucket no deeper than what is being sent.

    A chunk starts to leave when it is there and the one before has left, and takes 8 bits a byte at `rate_bit_s`; an
    idle line saves nothing up. It arrives `delay_s` and up to `jitter_s` (evenly distributed) after it has left, never
    before an earlier one. Time stands still for the line in the last `stall_s` of every `stall_every_s`, counted from
    time 0, for what leaves and for what is on its way.

    >>> shaper = Shaper(8000.0, delay_s=0.5)
    >>> shaper.send(1000, 0.0), shaper.send(1000, 0.0), shaper.send(1000, 5.0)
    ((1.0, 1.5), (2.0, 2.5), (6.0, 6.5))
    """

    def __init__(
        self,
        rate_bit_s: float,
        delay_s: float,
        jitter_s: float = 0.0,
        stall_s: float = 0.0,
        stall_every_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._rate_bit_s, self._delay_s, self._jitter_s = rate_bit_s, delay_s, jitter_s
        self._stall_s, self._every_s = stall_s, stall_every_s
        self._random = random.Random(seed)
        # Of the line's own time, which stands still in stalls.
        self._left_s = self._arrived_s = 0.0
        #: When everything sent so far has left.
        self.left_s = 0.0

    def send(self, n_bytes: int, now_s: float) -> Tuple[float, float]:
        """(when it has left, when it arrives) of a chunk that is there at `now_s`, not before the one before it."""
        self._left_s = max(self._line_time(now_s), self._left_s) + 8 * n_bytes / self._rate_bit_s
        arrives_s = self._left_s + self._delay_s + self._jitter_s * self._random.random()
        self._arrived_s = max(arrives_s, self._arrived_s)
        self.left_s = self._time(self._left_s)
        return self.left_s, self._time(self._arrived_s)

    def _line_time(self, time_s: float) -> float:
        """Seconds until `time_s` in which the line moved."""
        if not self._stall_s:
            return time_s
        periods = math.floor(time_s / self._every_s)
        moving_s = self._every_s - self._stall_s
        return periods * moving_s + min(time_s - periods * self._every_s, moving_s)

    def _time(self, line_s: float) -> float:
        """The last moment at which the line has moved for `line_s`."""
        if not self._stall_s:
            return line_s
        return line_s + math.floor(line_s / (self._every_s - self._stall_s)) * self._stall_s

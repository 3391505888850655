"""Shaper: the times at which bytes leave the sender and arrive, by the link's rate and delay. It reads no clock."""

import math
import random


class Shaper:
    """One direction of a link, as a queue of chunks of bytes that leave one after another at `rate_bit_s`.

    A chunk starts to leave once it is given and the chunk before has left; an idle link saves up no rate for later. It
    arrives `delay_s` plus up to `jitter_s` (uniformly distributed) after it has left, never before an earlier chunk. In
    the last `stall_s` of every `stall_every_s`, counted from time 0, nothing leaves and nothing arrives.

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
        # In line time, which stands still during stalls.
        self._left_s = self._arrived_s = 0.0
        #: The time at which everything sent so far has left.
        self.left_s = 0.0

    def send(self, n_bytes: int, now_s: float) -> tuple[float, float]:
        """(time it has left, time it arrives) of a chunk given at `now_s`; chunks are given in order of time."""
        self._left_s = max(self._line_time(now_s), self._left_s) + 8 * n_bytes / self._rate_bit_s
        arrives_s = self._left_s + self._delay_s + self._jitter_s * self._random.random()
        self._arrived_s = max(arrives_s, self._arrived_s)
        self.left_s = self._time(self._left_s)
        return self.left_s, self._time(self._arrived_s)

    def _line_time(self, time_s: float) -> float:
        """Line time of `time_s`: the seconds until then without the stalls."""
        if not self._stall_s:
            return time_s
        periods = math.floor(time_s / self._every_s)
        moving_s = self._every_s - self._stall_s
        return periods * moving_s + min(time_s - periods * self._every_s, moving_s)

    def _time(self, line_s: float) -> float:
        """The time of line time `line_s`: the inverse of `_line_time`, the end of the stall where it has several."""
        if not self._stall_s:
            return line_s
        return line_s + math.floor(line_s / (self._every_s - self._stall_s)) * self._stall_s

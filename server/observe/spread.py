"""Spread: how durations are spread, as a histogram of Prometheus counts them."""

from bisect import bisect_left
from typing import Any

#: Upper ends of the buckets, in seconds: from the coding of a small batch to the patience of `--step-wait`.
ENDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Spread:
    """Counts durations; no lock of its own."""

    def __init__(self) -> None:
        self.sum = 0.0
        #: How many were in each bucket, the last one without an end.
        self.counts = [0] * (len(ENDS) + 1)

    def add(self, seconds: float) -> None:
        self.sum += seconds
        self.counts[bisect_left(ENDS, seconds)] += 1

    def told(self) -> dict[str, Any]:
        """Their sum in seconds and their number; "buckets" has, by upper end, how many were no longer than that."""
        buckets, below = {}, 0
        for end, count in zip((*map(str, ENDS), "+Inf"), self.counts, strict=True):
            below += count
            buckets[end] = below
        return {"sum": self.sum, "count": below, "buckets": buckets}

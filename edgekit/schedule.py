"""The learning rate of a step. Device and server both compute it, from the device's step and its planned steps."""

import math
from typing import Callable, Dict

from edgekit.errors import UnknownName

#: Share of the steps over which "cosine" rises to the base rate.
WARM_UP = 0.05


def _constant(step: int, steps: int) -> float:
    return 1.0


def _cosine(step: int, steps: int) -> float:
    warm = int(WARM_UP * steps)
    if step < warm:
        return (step + 1) / float(warm)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / float(max(1, steps - warm)))))


SCHEDULES: Dict[str, Callable[[int, int], float]] = {"constant": _constant, "cosine": _cosine}


def learning_rate(schedule: str, base: float, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: "constant", or "cosine", a linear rise and then a cosine down to 0.

    >>> [round(learning_rate("cosine", 0.1, step, 40), 3) for step in (0, 1, 2, 21, 39, 40)]
    [0.05, 0.1, 0.1, 0.05, 0.0, 0.0]
    """
    check_schedule(schedule)
    return base * SCHEDULES[schedule](step, steps)


def check_schedule(schedule: str) -> None:
    """Raises UnknownName unless `schedule` is in `SCHEDULES`."""
    if schedule not in SCHEDULES:
        raise UnknownName("schedule", schedule, SCHEDULES, "there are: {}".format(", ".join(sorted(SCHEDULES))))

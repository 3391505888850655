"""The learning rate of a step, from how far the whole run is: the server computes it, devices are told."""

import math
from typing import Callable, Dict

from edgekit.errors import UnknownName

#: Share of the run over which "cosine" rises to the base rate.
WARM_UP = 0.05


def _constant(before: float, after: float) -> float:
    return 1.0


def _cosine(before: float, after: float) -> float:
    if before < WARM_UP:
        return min(after / WARM_UP, 1.0)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (before - WARM_UP) / (1.0 - WARM_UP))))


SCHEDULES: Dict[str, Callable[[float, float], float]] = {"constant": _constant, "cosine": _cosine}


def learning_rate(schedule: str, base: float, before: float, after: float) -> float:
    """The rate of the step that takes the run from `before` to `after`, shares of all images that will be seen.

    "constant", or "cosine": a linear rise and then a cosine down to 0.

    >>> [round(learning_rate("cosine", 0.1, step / 40, (step + 1) / 40), 3) for step in (0, 1, 2, 21, 39)]
    [0.05, 0.1, 0.1, 0.05, 0.0]
    """
    check_schedule(schedule)
    return base * SCHEDULES[schedule](before, after)


def check_schedule(schedule: str) -> None:
    """Raises UnknownName unless `schedule` is in `SCHEDULES`."""
    if schedule not in SCHEDULES:
        raise UnknownName("schedule", schedule, SCHEDULES, "there are: {}".format(", ".join(sorted(SCHEDULES))))

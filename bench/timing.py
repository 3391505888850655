"""Times of several functions that take turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def alternate(
    functions: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, np.ndarray]:
    """Milliseconds (repeats,) of each, everything once in every round, after two rounds of warm-up.

    Every round has an order of its own: what runs before leaves caches and heap in a state that counts.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    rng = np.random.default_rng(0)
    for i in range(repeats + 2):
        for name in rng.permutation(list(functions)):
            start = clock()
            functions[name]()
            if i >= 2:
                times[name].append(1e3 * (clock() - start))
    return {name: np.array(values) for name, values in times.items()}


def quartiles(ms: np.ndarray, digits: int) -> dict[str, float]:
    """Median and quartiles of milliseconds, as records have them."""
    low, median, high = (round(value, digits) for value in statistics.quantiles(ms.tolist(), n=4))
    return {"median_ms": median, "quartile1_ms": low, "quartile3_ms": high}


def measure(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Medians and quartiles of each, by wall clock."""
    return {name: quartiles(ms, 2) for name, ms in alternate(functions, repeats).items()}

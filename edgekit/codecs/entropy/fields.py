"""Unsigned integers <-> bits, each integer with a width of its own.

>>> write([(np.array([5, 1]), np.array([3, 0])), (np.array([2]), np.array([2]))]).tolist()
[1, 0, 1, 1, 0]
>>> read(np.array([1, 0, 1, 1, 0], dtype=np.uint8), np.array([3, 0, 2])).tolist()
[5, 0, 2]
"""

from typing import List, Tuple

import numpy as np


def write(fields: List[Tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """uint8 array of bits: the low ``widths[i]`` bits of ``values[i]``, most significant first, for each field."""
    values = np.concatenate([values for values, _ in fields])
    widths = np.concatenate([widths for _, widths in fields])
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for place in range(int(widths.max(initial=0))):
        some = np.flatnonzero(widths > place)
        bits[ends[some] - 1 - place] = values[some] >> place & 1
    return bits


def read(bits: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(m,) int64 values of these widths, at most 62, from the start of `bits`, which must be long enough."""
    ends = np.cumsum(widths)
    values = np.zeros(len(widths), dtype=np.int64)
    for place in range(int(widths.max(initial=0))):
        some = np.flatnonzero(widths > place)
        values[some] |= bits[ends[some] - 1 - place].astype(np.int64) << place
    return values

"""The largest values of a row, and the settings of codecs that keep them."""

import numpy as np

from edgekit.errors import UsageError


def keep_of(codec_id: str, keep: float) -> float:
    """`keep` itself, a share of values; UsageError unless it is from a millionth to 1."""
    if isinstance(keep, bool) or not (isinstance(keep, (int, float)) and 1e-6 <= keep <= 1):
        raise UsageError("{} takes a share to keep from 0.000001 to 1, got {!r}".format(codec_id, keep))
    return keep


def count_of(size: int, keep: float) -> int:
    """How many of `size` values the share `keep` is: at least 1, where there are any."""
    return min(max(round(keep * size), 1), size)


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """(k,) int64 ascending places of the values (m,) of largest magnitude, of equal ones the first.

    k is `count`, which is 1 or more, or less where the other values are 0.
    """
    magnitudes = np.abs(values)
    if count >= len(magnitudes):
        return np.flatnonzero(magnitudes)
    least = np.partition(magnitudes, len(magnitudes) - count)[len(magnitudes) - count]
    if least == 0:
        return np.flatnonzero(magnitudes)
    above = np.flatnonzero(magnitudes > least)
    equal = np.flatnonzero(magnitudes == least)[: count - len(above)]
    return np.sort(np.concatenate((above, equal)))

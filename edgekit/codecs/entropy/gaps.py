"""Gaps: the places of the chosen elements of a sequence <-> symbols of known probability, for `rans`.

A segment has `size` elements, of which `count` are chosen. What is coded is the gap before each chosen element, the
number of elements passed over. Gaps are modelled as geometric, every element chosen with the same probability: that of
the segment's class, count / size in half-octave steps. A gap is split into a bucket, which is entropy coded, and its
place in the bucket, which is written in plain bits. Gaps 0 to 7 have a bucket each; from 8 on an octave has four.
"""

from functools import lru_cache
from typing import Tuple

import numpy as np

from edgekit.codecs.entropy.slots import cumulative
from edgekit.codecs.entropy.tables import Tables, tables_of

#: The octaves of larger gaps, up to 2**31.
_OCTAVES = np.arange(3, 31)
_WIDTHS = np.concatenate((np.zeros(8, dtype=np.int64), np.repeat(_OCTAVES - 2, 4)))
_STARTS = np.concatenate((np.arange(8), (np.arange(4, 8) << (_OCTAVES - 2)[:, None]).reshape(-1)))
#: 2**-0.25 and 2**-0.75 in 32-bit fixed point: the middles of the two halves of an octave.
_MIDDLES = (3611622603, 2553802834)


@lru_cache(maxsize=8)
def tables(octaves: int) -> Tables:
    """Of the buckets, a line for each class of probability: for segments of fewer than ``2**octaves`` elements."""
    classes, buckets = 2 * octaves + 2, 8 + 4 * max(octaves - 3, 0)
    edges = [int(start) for start in _STARTS[:buckets]]
    edges.append(1 << max(octaves, 3))
    counts = np.empty((classes, buckets), dtype=np.int64)
    for k in range(classes):
        none = (1 << 32) - (_MIDDLES[k % 2] >> k // 2)
        left = [_power(none, edge) for edge in edges]
        counts[k] = [first - second for first, second in zip(left, left[1:])]
    return tables_of(cumulative(counts))


def _power(base: int, exponent: int) -> int:
    """base**exponent, base and result in 32-bit fixed point: the same integer on every machine."""
    result = 1 << 32
    while exponent:
        if exponent & 1:
            result = result * base >> 32
        base = base * base >> 32
        exponent >>= 1
    return result


def classes(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(segments,) int64: the class of each segment, a line of the tables; any class where nothing is chosen."""
    sparsity = sizes * sizes // np.maximum(counts * counts, 1)
    return np.asarray(np.searchsorted(np.left_shift(1, np.arange(1, 63)), sparsity, side="right"))


def octaves(elements: int) -> int:
    """The `octaves` of the tables for segments of at most `elements` elements."""
    return int(elements).bit_length()


def gaps(chosen: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The gap before each of `chosen`: ascending places in all segments, which follow each other."""
    previous = np.empty_like(chosen)
    previous[1:] = chosen[:-1] + 1
    filled = counts > 0
    previous[(np.cumsum(counts) - counts)[filled]] = (np.cumsum(sizes) - sizes)[filled]
    return np.asarray(chosen - previous)


def places(passed: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> Tuple[np.ndarray, bool]:
    """Inverse of `gaps`, and whether the chosen places of every segment lie inside it."""
    steps = passed + 1
    filled = counts > 0
    # `ends` runs on without the elements after a segment's last chosen one: the next segment's start adds them.
    ends = np.cumsum(steps)
    last = ends[(np.cumsum(counts) - 1)[filled]]
    used = np.diff(last, prepend=0)
    starts = (np.cumsum(sizes) - sizes)[filled] - (last - used)
    return ends - 1 + np.repeat(starts, counts[filled]), bool((used <= sizes[filled]).all())


def split(passed: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The bucket of each gap, and its place in the bucket, which takes `widths` bits."""
    buckets = np.searchsorted(_STARTS, passed, side="right") - 1
    return buckets, passed - _STARTS[buckets]


def widths(buckets: np.ndarray) -> np.ndarray:
    """The number of bits of a place in each of `buckets`."""
    return np.asarray(_WIDTHS[buckets])


def join(buckets: np.ndarray, within: np.ndarray) -> np.ndarray:
    """The gaps: inverse of `split`."""
    return np.asarray(_STARTS[buckets] + within)

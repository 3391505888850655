"""Gaps: which elements of a sequence are chosen <-> symbols of known probability.

A segment of `size` elements of which `count` are chosen is coded as the gaps before the chosen ones, as if each element
were chosen with the same probability: geometric, at half-octave steps of count / size. A gap is a bucket, which is
entropy coded, and its place in the bucket, as it stands: 0 to 7 have one bucket each, an octave has four.
"""

from functools import lru_cache
from typing import NamedTuple, Tuple

import numpy as np

from edgekit.codecs.entropy.rans import cumulative

#: Buckets that reach gaps of 2**31.
_OCTAVES = np.arange(3, 31)
_WIDTHS = np.concatenate((np.zeros(8, dtype=np.int64), np.repeat(_OCTAVES - 2, 4)))
_STARTS = np.concatenate((np.arange(8), (np.arange(4, 8) << (_OCTAVES - 2)[:, None]).reshape(-1)))
#: 2**-0.25 and 2**-0.75 in 32-bit fixed point: the middles of the two halves of an octave.
_MIDDLES = (3611622603, 2553802834)


class Tables(NamedTuple):
    """Of each class of probability, in the range coder's slots."""

    #: (classes, buckets) uint32: first slot, and how many.
    starts: np.ndarray
    widths: np.ndarray
    #: (classes, rans.TOTAL) uint8: bucket of a slot.
    buckets: np.ndarray


@lru_cache(maxsize=8)
def tables(octaves: int) -> Tables:
    """For segments of fewer than ``2**octaves`` elements."""
    classes, buckets = 2 * octaves + 2, 8 + 4 * max(octaves - 3, 0)
    edges = [int(start) for start in _STARTS[:buckets]]
    edges.append(1 << max(octaves, 3))
    counts = np.empty((classes, buckets), dtype=np.int64)
    for k in range(classes):
        none = (1 << 32) - (_MIDDLES[k % 2] >> k // 2)
        left = [_power(none, edge) for edge in edges]
        counts[k] = [first - second for first, second in zip(left, left[1:])]
    slots = cumulative(counts)
    widths = np.diff(slots, axis=1)
    each = [np.repeat(np.arange(buckets, dtype=np.uint8), line) for line in widths]
    return Tables(slots[:, :-1].astype(np.uint32), widths.astype(np.uint32), np.stack(each))


def _power(base: int, exponent: int) -> int:
    """base**exponent, both sides in 32-bit fixed point: the same integer on every machine."""
    result = 1 << 32
    while exponent:
        if exponent & 1:
            result = result * base >> 32
        base = base * base >> 32
        exponent >>= 1
    return result


def classes(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(segments,) int64: which line of the tables; any for a segment of which nothing is chosen."""
    sparsity = sizes * sizes // np.maximum(counts * counts, 1)
    return np.asarray(np.searchsorted(np.left_shift(1, np.arange(1, 63)), sparsity, side="right"))


def octaves(elements: int) -> int:
    """Of the tables for segments of at most so many elements."""
    return int(elements).bit_length()


def gaps(chosen: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Elements passed over before each of `chosen`, ascending places in all segments, one after another."""
    previous = np.empty_like(chosen)
    previous[1:] = chosen[:-1] + 1
    filled = counts > 0
    previous[(np.cumsum(counts) - counts)[filled]] = (np.cumsum(sizes) - sizes)[filled]
    return np.asarray(chosen - previous)


def places(passed: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> Tuple[np.ndarray, bool]:
    """Inverse of `gaps`, and whether every segment holds what is chosen in it."""
    steps = passed + 1
    filled = counts > 0
    # Where the last of one segment is, the next starts after what is left of the first.
    ends = np.cumsum(steps)
    last = ends[(np.cumsum(counts) - 1)[filled]]
    used = np.diff(last, prepend=0)
    starts = (np.cumsum(sizes) - sizes)[filled] - (last - used)
    return ends - 1 + np.repeat(starts, counts[filled]), bool((used <= sizes[filled]).all())


def split(passed: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Bucket of each gap, and its place there, of `widths` of the bucket bits."""
    buckets = np.searchsorted(_STARTS, passed, side="right") - 1
    return buckets, passed - _STARTS[buckets]


def widths(buckets: np.ndarray) -> np.ndarray:
    """Bits of a place in each of `buckets`."""
    return np.asarray(_WIDTHS[buckets])


def join(buckets: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Inverse of `split`."""
    return np.asarray(_STARTS[buckets] + within)

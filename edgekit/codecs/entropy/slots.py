"""How symbols share the slots of the rANS coder (`edgekit.codecs.entropy.rans`), and what a share of them costs."""

import numpy as np

PRECISION = 14
#: Slots, shared out among the symbols of one distribution.
TOTAL = 1 << PRECISION


def log2(values: np.ndarray) -> np.ndarray:
    """(...) int64: 256 times the binary logarithm of integers of at least 1 and below 2**31, rounded down."""
    mantissa = values.astype(np.int64)
    result = np.full(mantissa.shape, 30, dtype=np.int64)
    for shift in (16, 8, 4, 2, 1):
        small = mantissa < 1 << 31 - shift
        mantissa <<= small * shift
        result -= small * shift
    for _ in range(8):
        mantissa = mantissa * mantissa >> 30
        result = 2 * result + (mantissa >> 31)
        mantissa >>= mantissa >> 31
    return result


#: COST[w]: what a symbol of width w, up to TOTAL, takes, in 256ths of a bit.
COST = (256 * PRECISION - log2(np.maximum(np.arange(TOTAL + 1), 1))).astype(np.int16)


def cumulative(counts: np.ndarray) -> np.ndarray:
    """(...,s+1) int64 bounds of slots from (...,s) counts: symbol i owns the slots from bound i up to bound i+1.

    Every symbol owns at least one slot. Counts are integers of at least 0, with sums above 0 and below 2**48; s is at
    most TOTAL.
    """
    symbols = counts.shape[-1]
    slots = np.zeros((*counts.shape[:-1], symbols + 1), dtype=np.int64)
    ends = np.cumsum(counts, axis=-1, dtype=np.int64)
    slots[..., 1:] = ends * (TOTAL - symbols) // ends[..., -1:] + np.arange(1, symbols + 1)
    return slots

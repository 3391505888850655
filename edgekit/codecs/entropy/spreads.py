"""Spreads: how integers scatter around 0, as 256 distributions of their magnitudes, by integers alone.

They are generalised Gaussians: magnitude x is less probable than 0 by ``(x / scale) ** power`` bits. The power 2 is the
normal distribution and 1 Laplace's; lower ones have heavier tails. Distribution k has the power ``POWERS[k % 4]`` and
the scale ``2 ** (k // 4 / 4 - 8)``.

A magnitude is split into a bucket, which is entropy coded, and its place in the bucket, which is written in plain bits:
the buckets of `edgekit.codecs.entropy.gaps`.
"""

from functools import lru_cache

import numpy as np

from edgekit.codecs.entropy import gaps
from edgekit.codecs.entropy.slots import cumulative, log2

#: In quarters.
POWERS = (8, 6, 4, 3)
KINDS = 256
#: Scales are 2**-8 and up, in steps of a quarter octave; in 256ths of an octave.
_FIRST, _STEP = -8 * 256, 64
#: From there on a magnitude is as improbable as can be.
_END = 1 << 13
#: MANTISSAS[i]: 2**(16 + i/256), rounded up.
_MANTISSAS = (1 << 16) + np.searchsorted(log2(np.arange(1 << 16, 1 << 17)), 4096 + np.arange(256))
#: Bits of the weight of 0.
_TOP = 30


def octaves(largest: int) -> int:
    """The `octaves` of magnitudes up to `largest`, which is below 2**31."""
    return max(3, largest.bit_length())


def buckets(octaves: int) -> int:
    """How many buckets magnitudes below ``2**octaves``, 3 to 31, have."""
    return 4 * octaves - 4


@lru_cache(maxsize=32)
def slots(octaves: int) -> np.ndarray:
    """(KINDS, buckets + 1) int64: the rANS coder's slots of every bucket, as `slots.cumulative` gives them."""
    return cumulative(_weights()[:, : buckets(octaves)])


@lru_cache(maxsize=1)
def _weights() -> np.ndarray:
    """(KINDS, all buckets) int64: about 2**30 times the probability of each bucket, over that of 0."""
    logs = log2(np.arange(1, _END))
    starts = gaps.join(np.arange(buckets(31)), np.zeros(buckets(31), dtype=np.int64))
    edges = np.minimum(np.append(starts, 1 << 31), _END)
    weights = np.empty((KINDS, len(starts)), dtype=np.int64)
    below = np.zeros(_END + 1, dtype=np.int64)
    for kind in range(KINDS):
        scale = _FIRST + kind // 4 * _STEP
        # In 256ths of a bit, so 256 times 2**(exponent / 256); more than 64 bits are as good as 64.
        cost = _exp2(np.minimum((POWERS[kind % 4] * (logs - scale) >> 2) + 8 * 256, 14 * 256))
        below[1] = 1 << _TOP
        # A magnitude that is not 0 stands for two levels.
        below[2:] = below[1] + np.cumsum(2 * _exp2(256 * _TOP - cost))
        weights[kind] = np.diff(below[edges])
    return weights


def _exp2(exponents: np.ndarray) -> np.ndarray:
    """(...) int64: 2**(e/256) for exponents e, integers up to 256 * 30, rounded down; 0 below e = 0."""
    shifts = np.clip(_TOP - (exponents >> 8), 0, 62)
    return np.asarray(_MANTISSAS[exponents & 255] << 14 >> shifts)

"""vq: vector quantisation of the gradient, with a codebook of random directions and a length per stripe."""

from typing import List, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.checks import check_length, check_sendable
from edgekit.codecs.entropy import bits as bitpack
from edgekit.errors import PayloadError, UsageError

#: A length is the longest one times a power of this; the 255 powers span five orders of magnitude.
_RATIO = 0.955
_STEPS = np.concatenate(([0.0], _RATIO ** np.arange(254, -1, -1)))


class VQ(GradientCodec):
    """Every stripe as the nearest of ``2**bits`` directions, times one of 256 lengths.

    A stripe is the values of one of `groups` groups of channels at one position. The directions are drawn from the seed
    in the message.

    With `exact` it is unbiased: directions are drawn anew for every message, so that errors at right angles to the
    stripe have no preferred direction, and the length makes up for what the angle loses (as in DRIVE: Vargaftik et al.
    2021, arXiv:2105.08339). Without it, what arrives is the stripe's projection on the direction: nearer, but biased.
    Elements where the mask is False count as 0.

    ======  ===================  ==================================================================
    offset  size                 field, s = n*groups*h*w stripes in the order image, group, row, column
    ======  ===================  ==================================================================
    0       4                    little-endian float32 longest length
    4       4                    little-endian seed of the codebook
    8       s                    length: 0, or k for 0.955**(255 - k) times the longest
    8 + s   ceil(s bits/8)       direction, `bits` bits each, most significant first
    ======  ===================  ==================================================================
    """

    codec_id = "vq"

    def __init__(self, groups: int = 8, bits: int = 8, exact: bool = True) -> None:
        if not (isinstance(groups, int) and isinstance(bits, int) and groups >= 1 and 1 <= bits <= 12):
            raise UsageError("vq takes at least 1 group and 1 to 12 bits, got {!r} and {!r}".format(groups, bits))
        self.groups = groups
        self.bits = bits
        self.exact = exact
        # With two directions, one and its opposite, the length has no finite expectation.
        self.unbiased = exact and bits >= 2

    def check(self, channels: int) -> None:
        if channels % self.groups:
            raise UsageError("vq with {} groups cannot code {} channels in equal ones".format(self.groups, channels))

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        """The payload. UsageError when `gradient` holds NaN or infinity, or its channels do not make equal groups."""
        self.check_arrays(gradient, mask)
        if mask is not None:
            gradient = np.where(mask, gradient, np.float32(0))
        self.check(gradient.shape[1])
        stripes = self._stripes(gradient).astype(np.float64)
        largest = float(np.abs(stripes).max())
        check_sendable(largest)
        stripes /= largest or 1.0
        seed = int(rng.integers(1 << 32)) if self.exact else 0
        book = _directions(stripes.shape[1], self.bits, seed)
        chosen, along = _nearest(stripes, book)
        squares = np.square(stripes).sum(axis=1)
        lengths = squares / np.maximum(along, 1e-30) if self.exact else np.maximum(along, 0)
        lengths[squares == 0] = 0
        longest = np.float32(min(float(lengths.max()) * largest, float(np.finfo(np.float32).max)))
        steps = _round(lengths / (float(lengths.max()) or 1.0), rng)
        head: bytes = np.array([longest], dtype="<f4").tobytes() + np.array([seed], dtype="<u4").tobytes()
        return head + steps.astype(np.uint8).tobytes() + bitpack.pack(chosen, self.bits)

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        n, channels, h, w = shape
        self.check(channels)
        count = n * self.groups * h * w
        expected = 8 + count + bitpack.size(count, self.bits)
        check_length(payload, expected, "vq gradient", "{} stripes".format(count))
        longest = float(np.frombuffer(payload, dtype="<f4", count=1)[0])
        if not (np.isfinite(longest) and longest >= 0):
            raise PayloadError("longest stripe of {}, expected 0 or more".format(longest), 0)
        seed = int(np.frombuffer(payload, dtype="<u4", count=1, offset=4)[0])
        lengths = longest * _STEPS[np.frombuffer(payload, dtype=np.uint8, count=count, offset=8)]
        chosen = bitpack.unpack(payload, count, self.bits, start=8 + count)
        stripes = _directions(channels // self.groups, self.bits, seed)[chosen] * lengths[:, None]
        values = stripes.reshape(n, self.groups, h, w, -1).transpose(0, 1, 4, 2, 3).reshape(n, channels, h, w)
        gradient = values.astype(np.float32)
        return gradient if mask is None else np.where(mask, gradient, np.float32(0))

    def _stripes(self, gradient: np.ndarray) -> np.ndarray:
        n, channels, h, w = gradient.shape
        grouped = gradient.reshape(n, self.groups, channels // self.groups, h, w).transpose(0, 1, 3, 4, 2)
        return grouped.reshape(-1, channels // self.groups)


def _directions(width: int, bits: int, seed: int) -> np.ndarray:
    """(2**bits, width) float64 unit vectors: half of them drawn uniformly from the sphere, then their opposites."""
    # The legacy generator, whose stream is the same in every version of numpy.
    half = np.random.RandomState(seed).normal(size=((1 << bits) // 2, width))
    half /= np.sqrt(np.square(half).sum(axis=1))[:, None]
    return np.concatenate((half, -half))


def _nearest(stripes: np.ndarray, book: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """For each of `stripes` (s,d), the direction of `book` (k,d) with the largest product, and that product."""
    along: List[np.ndarray] = []
    chosen: List[np.ndarray] = []
    for start in range(0, len(stripes), 4096):
        products = stripes[start : start + 4096] @ book.T
        best = products.argmax(axis=1)
        chosen.append(best)
        along.append(products[np.arange(len(best)), best])
    return np.concatenate(chosen), np.concatenate(along)


def _round(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(s,) indices into `_STEPS`, rounded up or down at random so that the expectation is `lengths`, in [0, 1]."""
    above = np.clip(np.searchsorted(_STEPS, lengths), 1, 255)
    low, high = _STEPS[above - 1], _STEPS[above]
    up = rng.random(len(lengths)) * (high - low) < lengths - low
    steps: np.ndarray = np.where(up, above, above - 1)
    return steps

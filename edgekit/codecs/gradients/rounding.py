"""Rounded: gradient <-> a scale per image and small integers, by stochastic rounding; the base of two codecs."""

from abc import abstractmethod
from typing import Optional, Sequence

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.checks import check_length, check_sendable, scales_of


class Rounded(GradientCodec):
    """Rounds to levels -L..L, where L is each image's largest magnitude; a subclass packs the levels.

    ======  ====  ====================================================================================
    offset  size  field, of n images of which m elements in all are sent (those where the mask is True)
    ======  ====  ====================================================================================
    0       4n    little-endian float32 per image: largest magnitude of its sent elements, 0 if none
    4n      rest  level + L, an integer in 0..2L, of the m sent elements, row-major, as the subclass packs
    ======  ====  ====================================================================================

    An element x of an image of scale s becomes level floor(L x/s + u), u uniform in [0, 1): its expectation is L x/s.
    """

    unbiased = True
    #: L, 1 to 127
    levels = 1

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        """The payload. UsageError when `gradient` holds NaN or infinity, for which there is no scale."""
        self.check_arrays(gradient, mask)
        sent = gradient if mask is None else np.where(mask, gradient, np.float32(0))
        scales: np.ndarray = np.abs(np.maximum(sent.max(axis=(1, 2, 3)), -sent.min(axis=(1, 2, 3))))
        check_sendable(scales)
        divisors = np.where(scales > 0, scales, np.float32(1))
        values = gradient / divisors[:, None, None, None] if mask is None else gradient[mask] / _spread(divisors, mask)
        values *= self.levels
        values += rng.random(values.shape, dtype=np.float32)
        values += self.levels
        # All values are >= 0 now, so the cast rounds down; float32 addition may have rounded up to 2L + 1.
        offsets = np.minimum(values.astype(np.uint8), np.uint8(2 * self.levels))
        return scales.astype("<f4", copy=False).tobytes() + self._pack(offsets.reshape(-1))

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        n = shape[0]
        count = int(np.prod(shape) if mask is None else np.count_nonzero(mask))
        told = "{} gradient".format(self.codec_id), "{} images and {} elements".format(n, count)
        check_length(payload, 4 * n + self._size(count), *told)
        scales = scales_of(payload, n, "scale of image")
        # Level / L first, at most 1: its product with a scale cannot overflow.
        table = np.arange(-self.levels, self.levels + 1, dtype=np.float32) / np.float32(self.levels)
        values: np.ndarray = table[self._unpack(payload, 4 * n, count)]
        if mask is None:
            return np.asarray(values.reshape(shape) * scales[:, None, None, None])
        gradient = np.zeros(shape, dtype=np.float32)
        gradient[mask] = values * _spread(scales, mask)
        return gradient

    @abstractmethod
    def _size(self, count: int) -> int:
        """Bytes that `count` offsets take."""

    @abstractmethod
    def _pack(self, offsets: np.ndarray) -> bytes:
        """Bytes of `offsets` (m,) uint8."""

    @abstractmethod
    def _unpack(self, payload: bytes, start: int, count: int) -> np.ndarray:
        """(count,) integers in 0..2L from byte `start` to the end, of the right length; PayloadError if larger."""


def _spread(per_image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(m,): for every element where `mask` is True, the value of its image."""
    return np.repeat(per_image, np.count_nonzero(mask, axis=(1, 2, 3)))

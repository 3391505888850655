"""stochastic: stochastic rounding of the gradient to levels of a few bits, unbiased."""

import numpy as np

from edgekit.codecs.checks import bits_of
from edgekit.codecs.entropy import bits as bitpack
from edgekit.codecs.gradients.rounding import Rounded
from edgekit.errors import PayloadError


class Stochastic(Rounded):
    """Levels -L..L of `bits` bits each, L = 2**(bits-1) - 1.

    ======  ===============  ======================================================================
    offset  size             field, of n images and m elements where the mask is True
    ======  ===============  ======================================================================
    0       4n               little-endian float32 scale per image: its largest magnitude, 0 if none
    4n      ceil(m bits/8)   level + L in `bits` bits each, row-major, most significant bit first
    ======  ===============  ======================================================================

    >>> gradient = np.array([[[[1.0]], [[-1.0]], [[0.0]]]], dtype=np.float32)
    >>> Stochastic(bits=4).pack(gradient, None, np.random.default_rng(0)).hex()
    '0000803fe070'
    """

    codec_id = "stochastic"

    def __init__(self, bits: int = 4) -> None:
        self.bits = bits_of(self.codec_id, bits)
        self.levels = 2 ** (bits - 1) - 1

    def _size(self, count: int) -> int:
        return bitpack.size(count, self.bits)

    def _pack(self, offsets: np.ndarray) -> bytes:
        return bitpack.pack(offsets, self.bits)

    def _unpack(self, payload: bytes, start: int, count: int) -> np.ndarray:
        offsets = bitpack.unpack(payload, count, self.bits, start=start)
        if offsets.max(initial=0) > 2 * self.levels:
            first = int(np.argmax(offsets > 2 * self.levels))
            raise PayloadError(
                "element {} has level {}, expected at most {}".format(first, offsets[first], 2 * self.levels),
                start + first * self.bits // 8,
            )
        return offsets

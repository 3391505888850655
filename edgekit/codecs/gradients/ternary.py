"""ternary: every element as -1, 0 or 1 times its image's largest magnitude, rounded stochastically, unbiased."""

import numpy as np

from edgekit.codecs.gradients.rounding import Rounded
from edgekit.errors import PayloadError

_PLACES = np.array([81, 27, 9, 3, 1], dtype=np.uint8)
#: The five trits of every byte value below 243.
_TRITS = (np.arange(243)[:, None] // _PLACES % 3).astype(np.uint8)


class Ternary(Rounded):
    """A trit (-1, 0 or 1) per element, five to a byte: 1.6 bits an element.

    ======  ==========  ===========================================================================
    offset  size        field, of n images and m elements where the mask is True
    ======  ==========  ===========================================================================
    0       4n          little-endian float32 scale per image: its largest magnitude, 0 if none
    4n      ceil(m/5)   trits 0, 1, 2 for -1, 0, 1, row-major, the first times 81, the fifth times 1;
                        the last byte is filled with trits 0
    ======  ==========  ===========================================================================

    >>> gradient = np.array([[[[1.0]], [[-1.0]], [[0.0]]]], dtype=np.float32)
    >>> Ternary().pack(gradient, None, np.random.default_rng(0)).hex()
    '0000803fab'
    """

    codec_id = "ternary"

    def _size(self, count: int) -> int:
        return (count + 4) // 5

    def _pack(self, offsets: np.ndarray) -> bytes:
        trits = np.zeros((self._size(offsets.size), 5), dtype=np.uint8)
        trits.reshape(-1)[: offsets.size] = offsets
        packed: np.ndarray = trits.dot(_PLACES)
        return packed.tobytes()

    def _unpack(self, payload: bytes, start: int, count: int) -> np.ndarray:
        packed = np.frombuffer(payload, dtype=np.uint8, offset=start)
        if packed.max(initial=0) >= 243:
            first = int(np.argmax(packed >= 243))
            raise PayloadError("byte {} holds no five trits, expected at most 242".format(packed[first]), start + first)
        return _TRITS[packed].reshape(-1)[:count]

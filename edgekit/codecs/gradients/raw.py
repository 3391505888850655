"""raw: the gradient as 32-bit floats."""

from typing import Optional, Sequence

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.checks import finite_values


class Raw(GradientCodec):
    """The gradient itself, element by element, without loss.

    ======  ====  ========================================================================
    offset  size  field
    ======  ====  ========================================================================
    0       4m    little-endian float32 of the m elements where the mask is True, row-major
    ======  ====  ========================================================================

    >>> gradient = np.array([[[[1.0]], [[-2.0]], [[0.5]]]], dtype=np.float32)
    >>> mask = np.array([[[[True]], [[False]], [[True]]]])
    >>> Raw().pack(gradient, mask, np.random.default_rng(0)).hex()
    '0000803f0000003f'
    """

    codec_id = "raw"
    unbiased = True

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        self.check_arrays(gradient, mask)
        sent = gradient if mask is None else gradient[mask]
        return sent.astype("<f4", copy=False).tobytes()

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        count = int(np.prod(shape) if mask is None else np.count_nonzero(mask))
        values = finite_values(payload, count, "raw gradient", "{} elements".format(count))
        if mask is None:
            return values.reshape(shape)
        gradient = np.zeros(shape, dtype=np.float32)
        gradient[mask] = values
        return gradient

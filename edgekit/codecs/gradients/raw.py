"""raw: the gradient as 32-bit floats."""

from typing import Optional, Sequence

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.errors import PayloadError
from edgekit.tensors import TensorSpec


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
        TensorSpec("gradient", "float32", (-1, -1, -1, -1)).check(gradient, repr(self))
        if mask is not None:
            TensorSpec("mask", "bool", gradient.shape).check(mask, repr(self))
            gradient = gradient[mask]
        return gradient.astype("<f4", copy=False).tobytes()

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        count = int(np.prod(shape) if mask is None else np.count_nonzero(mask))
        if len(payload) != 4 * count:
            raise PayloadError(
                "raw gradient of {} B, expected {} B for {} elements".format(len(payload), 4 * count, count),
                min(len(payload), 4 * count),
            )
        values = np.frombuffer(payload, dtype="<f4").astype(np.float32)
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values)))
            raise PayloadError("raw gradient holds {}, expected finite numbers".format(values[first]), 4 * first)
        if mask is None:
            return values.reshape(shape)
        gradient = np.zeros(shape, dtype=np.float32)
        gradient[mask] = values
        return gradient

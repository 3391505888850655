"""residual: two gradient codecs in turn; the second codes the residual, what the first has left."""

import struct
from typing import Any, Dict, Optional, Sequence

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.registry import gradient_codec
from edgekit.errors import PayloadError, UsageError


class Residual(GradientCodec):
    """The gradient as the sum of two parts: `first` codes it, and `second` codes the residual.

    `first` and `second` are ``[id, configuration]``. Unbiased when `second` is, whatever `first` does: the expectation
    of the second part is the whole residual.

    ======  ====  ===============================================
    offset  size  field
    ======  ====  ===============================================
    0       4     bytes of the next field, m, little-endian
    4       m     payload of `first`
    4 + m   rest  payload of `second`, of the residual
    ======  ====  ===============================================
    """

    codec_id = "residual"

    def __init__(
        self,
        first: Sequence[Any] = ("vq", {"groups": 4, "bits": 8, "exact": False}),
        second: Sequence[Any] = ("sparse", {"step": 20}),
    ) -> None:
        self.first, self.second = (stage_of(stage) for stage in (first, second))
        self.unbiased = self.second.unbiased
        self.drops = self.first.drops and self.second.drops

    @property
    def config(self) -> Dict[str, Any]:
        stages = {"first": self.first, "second": self.second}
        return {name: [codec.codec_id, codec.config] for name, codec in stages.items()}

    def check(self, channels: int) -> None:
        self.first.check(channels)
        self.second.check(channels)

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        self.check_arrays(gradient, mask)
        head = self.first.pack(gradient, mask, rng)
        left = gradient - self.first.unpack(head, gradient.shape, mask)
        return struct.pack("<I", len(head)) + head + self.second.pack(left, mask, rng)

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        size = struct.unpack_from("<I", payload)[0] if len(payload) >= 4 else 0
        if len(payload) < 4 + size:
            raise PayloadError("residual gradient of {} B, first stage of {}".format(len(payload), size), len(payload))
        total = self.first.unpack(payload[4 : 4 + size], shape, mask).astype(np.float64)
        total += self.second.unpack(payload[4 + size :], shape, mask)
        largest = np.finfo(np.float32).max
        return np.clip(total, -largest, largest).astype(np.float32)


def stage_of(stage: Sequence[Any]) -> GradientCodec:
    """The codec of one stage, ``[id, configuration]``; UsageError for one that has stages itself."""
    if not (isinstance(stage, (list, tuple)) and len(stage) == 2 and isinstance(stage[1], dict)):
        raise UsageError("a stage is [codec, configuration], got {!r}".format(stage))
    if stage[0] in ("sampled", "residual"):
        raise UsageError("a stage is a codec of one stage, got {!r}".format(stage[0]))
    return gradient_codec(str(stage[0]), stage[1])

"""sampled: the gradient of randomly chosen images, scaled up to make up for the others."""

from typing import Any, Dict, Optional, Sequence

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.gradients.residual import stage_of
from edgekit.errors import PayloadError, UsageError


class Sampled(GradientCodec):
    """The gradient of k of n images, drawn without replacement; k is n times `share`, rounded up.

    Another codec, `codec` as ``[id, configuration]``, codes it, and it arrives n/k times as long. So the expectation of
    every image's gradient is that of the other codec.

    ======  ===========  =================================================
    offset  size         field
    ======  ===========  =================================================
    0       ceil(n/8)    a bit per image, 1 if sent, most significant first
    ...     rest         payload of `codec` for these images
    ======  ===========  =================================================
    """

    codec_id = "sampled"

    def __init__(self, share: float = 0.5, codec: Sequence[Any] = ("sparse", {})) -> None:
        if not (isinstance(share, (int, float)) and 0 < share <= 1):
            raise UsageError("sampled takes a share above 0 and up to 1, got {!r}".format(share))
        self.share = share
        self.codec = stage_of(codec)
        self.unbiased = self.codec.unbiased
        self.drops = self.codec.drops

    @property
    def config(self) -> Dict[str, Any]:
        return {"share": self.share, "codec": [self.codec.codec_id, self.codec.config]}

    def check(self, channels: int) -> None:
        self.codec.check(channels)

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        self.check_arrays(gradient, mask)
        n = len(gradient)
        sent = np.zeros(n, dtype=bool)
        sent[rng.permutation(n)[: self._count(n)]] = True
        payload = self.codec.pack(gradient[sent], None if mask is None else mask[sent], rng)
        return np.packbits(sent).tobytes() + payload

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        n = shape[0]
        k, start = self._count(n), (n + 7) // 8
        flags = np.unpackbits(np.frombuffer(payload[:start], dtype=np.uint8))
        sent = flags[:n].astype(bool)
        if len(payload) < start or sent.sum() != k or flags[n:].any():
            raise PayloadError(
                "gradients of {} of {} images, expected {}".format(int(flags.sum()), n, k), min(len(payload), start)
            )
        some = self.codec.unpack(payload[start:], (k, *shape[1:]), None if mask is None else mask[sent])
        largest = np.finfo(np.float32).max
        gradient = np.zeros(shape, dtype=np.float32)
        gradient[sent] = np.clip(some.astype(np.float64) * (n / k), -largest, largest)
        return gradient

    def _count(self, n: int) -> int:
        return int(np.ceil(self.share * n))

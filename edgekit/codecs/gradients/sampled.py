"""sampled: the gradient of randomly chosen images, scaled up to make up for the others."""

from typing import Any, Dict, Optional, Sequence

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.registry import gradient_codec
from edgekit.errors import PayloadError, UsageError
from edgekit.tensors import TensorSpec


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
        if not (isinstance(codec, (list, tuple)) and len(codec) == 2 and isinstance(codec[1], dict)):
            raise UsageError("sampled takes a codec as [codec, configuration], got {!r}".format(codec))
        if codec[0] in ("sampled", "residual"):
            raise UsageError("sampled takes a codec of one stage, got {!r}".format(codec[0]))
        self.share = share
        self.codec = gradient_codec(str(codec[0]), codec[1])
        self.unbiased = self.codec.unbiased
        self.drops = self.codec.drops

    @property
    def config(self) -> Dict[str, Any]:
        return {"share": self.share, "codec": [self.codec.codec_id, self.codec.config]}

    def check(self, channels: int) -> None:
        self.codec.check(channels)

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        TensorSpec("gradient", "float32", (-1, -1, -1, -1)).check(gradient, repr(self))
        if mask is not None:
            TensorSpec("mask", "bool", gradient.shape).check(mask, repr(self))
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

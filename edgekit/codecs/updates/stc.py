"""stc: the largest values of the update, all as one magnitude: sparse ternary compression (Sattler et al. 2019).

arXiv:1903.02891.
"""

import math

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.checks import scales_of
from edgekit.codecs.updates import coding
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.codecs.updates.flat import Shapes, flat, named, shapes_of, sizes_of
from edgekit.codecs.updates.top import count_of, keep_of, largest
from edgekit.errors import PayloadError


class STC(UpdateCodec):
    """The share `keep` of all values, those of largest magnitude, as their sign times the mean of their magnitudes.

    ======  ====  =====================================================================================
    offset  size  field
    ======  ====  =====================================================================================
    0       4     little-endian float32 mean of the magnitudes
    4       rest  the signs, 0 where nothing is kept, see `edgekit.codecs.updates.coding`
    ======  ====  =====================================================================================

    >>> update = {"a": np.float32([1, -4, 2, 0])}
    >>> STC(keep=0.5).unpack(STC(keep=0.5).pack(update, np.random.default_rng(0)), {"a": (4,)})
    {'a': array([ 0., -3.,  3.,  0.], dtype=float32)}
    """

    codec_id = "stc"

    def __init__(self, keep: float = 0.04) -> None:
        self.keep = keep_of(self.codec_id, keep)

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        self.check_update(update)
        values = flat(update)
        kept = largest(values, count_of(len(values), self.keep))
        levels = np.zeros(len(values), dtype=np.int64)
        levels[kept] = np.sign(values[kept])
        mean = np.abs(values[kept].astype(np.float64)).mean() if len(kept) else 0.0
        return np.array(mean, dtype="<f4").tobytes() + coding.encode(levels, shapes_of(update))

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        if len(payload) < 4:
            raise PayloadError("stc update of {} B, expected a mean and levels".format(len(payload)), len(payload))
        mean = scales_of(payload, 1, "mean")
        levels = coding.decode(payload, 4, shapes)
        if np.abs(levels).max(initial=0) > 1:
            raise PayloadError("a level beyond -1, 0 and 1", 4)
        return named(levels.astype(np.float32) * mean, shapes)

    def formula_bits(self, shapes: Shapes) -> float:
        """Of every value kept a sign and its place by Golomb's code, as in the paper, and the mean."""
        total = sum(sizes_of(shapes))
        return count_of(total, self.keep) * (1 + golomb_bits(self.keep)) + 32

    def sender(self, learns: bool = True) -> UpdateSender:
        return ErrorFeedback(self)


def golomb_bits(share: float) -> float:
    """Mean bits of a gap by Golomb's code, of elements that are chosen with the probability `share`, above 0 to 1."""
    if share == 1:
        return 1.0
    golden = (math.sqrt(5) - 1) / 2
    low = max(1 + math.floor(math.log2(math.log(golden) / math.log1p(-share))), 0)
    # 1 - (1 - share) ** (2 ** low), without loss where the share is small.
    return low - 1 / math.expm1(2**low * math.log1p(-share))

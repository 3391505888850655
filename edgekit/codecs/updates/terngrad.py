"""terngrad: every value as -1, 0 or 1 times its array's largest magnitude, at random and unbiased (Wen et al. 2017).

arXiv:1705.07878. The paper's clipping of gradients, after which they are biased, is left out.
"""

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.checks import scales_of
from edgekit.codecs.updates import coding
from edgekit.codecs.updates.flat import Shapes, flat, named, shapes_of, sizes_of
from edgekit.errors import PayloadError


class TernGrad(UpdateCodec):
    """A value x arrives as the sign of x times u, the largest magnitude of its array, with the probability ``|x| / u``.

    Else it arrives as 0. So what arrives is right on average over the random generator, and nothing is kept for the
    next update.

    ======  ====  ==========================================================================
    offset  size  field, of t arrays in order of name
    ======  ====  ==========================================================================
    0       4t    little-endian float32 u of each array; 0 where all of it is 0
    4t      rest  the signs, 0 where nothing arrives, see `edgekit.codecs.updates.coding`
    ======  ====  ==========================================================================

    >>> update = {"a": np.float32([3, -3, 0])}
    >>> TernGrad().unpack(TernGrad().pack(update, np.random.default_rng(0)), {"a": (3,)})
    {'a': array([ 3., -3.,  0.], dtype=float32)}
    """

    codec_id = "terngrad"

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        self.check_update(update)
        shapes = shapes_of(update)
        values = flat(update)
        units = np.array([np.abs(update[name]).max(initial=0) for name in sorted(update)], dtype="<f4")
        reach = np.repeat(units.astype(np.float64), sizes_of(shapes))
        levels = np.where(rng.random(len(values)) * reach < np.abs(values), np.sign(values), 0)
        return units.tobytes() + coding.encode(levels.astype(np.int64), shapes)

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        if len(payload) < 4 * len(shapes):
            told = "terngrad update of {} B, expected {} scales".format(len(payload), len(shapes))
            raise PayloadError(told, len(payload))
        units = np.repeat(scales_of(payload, len(shapes), "scale"), sizes_of(shapes))
        levels = coding.decode(payload, 4 * len(shapes), shapes)
        if np.abs(levels).max(initial=0) > 1:
            raise PayloadError("a level beyond -1, 0 and 1", 4 * len(shapes))
        return named(levels.astype(np.float32) * units, shapes)

    def formula_bits(self, shapes: Shapes) -> float:
        """2 a value, as the paper has it coded, and the scales; log2(3) is its bound."""
        return 2.0 * sum(sizes_of(shapes)) + 32 * len(shapes)

    def sender(self, learns: bool = True) -> UpdateSender:
        return UpdateSender(self)

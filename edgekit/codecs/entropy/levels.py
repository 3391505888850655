"""Levels: integers that are mostly 0, else mostly 1 or -1, <-> bytes, entropy coded.

They come in segments of elements that are 0 about equally often; both ends know the sizes. For every segment it is
coded how many levels are not 0, and where (`gaps`). Then, of all that are not 0, which are beyond 1 in magnitude, and
by how much: the excess.

======  ====  ===============================================================================================
offset  size  field (integers little-endian)
======  ====  ===============================================================================================
0       1     bits of a count, k
1       4     bytes of the next field, b
5       b     bits, most significant first, filled with zeros:
              k each: how many are not 0 in every segment, then how many of these, m, are beyond 1;
              signs of the m, 1 for negative; places of all gaps in their buckets;
              of those beyond 1 the excess x: length of x in bits, less 1, in unary (ones, then a zero), each;
              then x without its leading one
5 + b   rest  buckets of the gaps, range coded (`edgekit.codecs.entropy.rans`)
======  ====  ===============================================================================================
"""

from typing import Tuple

import numpy as np

from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.native import levels as native
from edgekit.codecs.entropy.rans import BITS_PER_LANE
from edgekit.codecs.entropy.reference import levels as reference


def encode(places: np.ndarray, values: np.ndarray, sizes: np.ndarray) -> bytes:
    """The bytes of the levels that are not 0: their ascending `places` and their `values`, both (k,) int64.

    The segments are of `sizes` (s,) int64, fewer than 2**31 elements in all. Magnitudes are below 2**41.
    """
    return pick(native.encode, reference.encode)(places, values, sizes, BITS_PER_LANE)


def decode(payload: bytes, start: int, sizes: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The levels that are not 0: their ascending places and values, both (k,) int64, from byte `start` to the end.

    The segments are of `sizes` (s,) int64. PayloadError on bytes that `encode` does not write.
    """
    return pick(native.decode, reference.decode)(payload, start, sizes)

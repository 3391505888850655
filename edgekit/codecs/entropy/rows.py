"""Rows: levels of several arrays, integers that are often 0, <-> bytes, each coded in the context of those before it.

Arrays have rows: those of a weight are its filters or output neurons. Where many of a row or a column are not 0, or
large, more are. So what is coded follows what came before: in the row, and in the same columns of the rows above. All
arrays share the models, which begin knowing nothing and learn from every symbol; with every array those of how large
levels are learn anew, but not from nothing.

By row, where an array has several: whether it is all 0, given the same of the two rows before. Then by group of four:

- which of them are not 0, as one symbol, given about how many of them should be: an average over the two groups before,
  the three groups above, the rows so far (`columns`) and the row so far;
- of each that is not 0 the length in bits of its magnitude, given the average of magnitudes in the same places; the
  four bits below the leading one, given the length; the other bits as they are; the sign, given those of the level
  before and of the third before, which in a filter of 3x3 is above it.

Everything goes into one stream, see `edgekit.codecs.entropy.reference.adaptive`.
"""

from typing import Tuple

import numpy as np

from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.native import rows as native
from edgekit.codecs.entropy.reference import rows as reference
from edgekit.errors import PayloadError, ShapeError


def encode(levels: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> bytes:
    """The bytes of `levels` (m,) int64, of magnitudes below 2**31; none for none.

    They are those of arrays of `sizes` (t,) values, one after another, in `rows` (t,) rows of equal length. ShapeError
    where these do not go together, UsageError for larger levels.
    """
    sizes, rows = _checked(sizes, rows)
    if levels.shape != (int(sizes.sum()),):
        raise ShapeError("levels of shape {}, expected ({},), the sum of the sizes".format(levels.shape, sizes.sum()))
    if not len(levels):
        return b""
    return pick(native.encode, reference.encode)(np.ascontiguousarray(levels, dtype=np.int64), sizes, rows)


def decode(payload: bytes, start: int, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The levels (m,) int64 from byte `start` of `payload` to the end: the inverse of `encode`.

    PayloadError on bytes that it does not write.
    """
    sizes, rows = _checked(sizes, rows)
    if len(sizes):
        return pick(native.decode, reference.decode)(payload, start, sizes, rows)
    if len(payload) != start:
        raise PayloadError("{} B of no levels, expected none".format(len(payload) - start), start)
    return np.zeros(0, dtype=np.int64)


def _checked(sizes: np.ndarray, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Both as int64, without arrays of no values. ShapeError unless the rows of each array are of one length."""
    filled = np.asarray(sizes) != 0
    sizes, rows = (np.asarray(numbers)[filled].astype(np.int64) for numbers in (sizes, rows))
    if (sizes < 1).any() or (rows < 1).any() or (sizes % rows).any():
        told = "arrays of {} values in {} rows, expected rows of one length"
        raise ShapeError(told.format(sizes.tolist(), rows.tolist()))
    return sizes, rows

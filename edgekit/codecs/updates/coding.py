"""Levels of an update, integers that are mostly 0, <-> bytes: entropy coded by `edgekit.codecs.entropy.rows`."""

import numpy as np

from edgekit.codecs.entropy import rows
from edgekit.codecs.updates.flat import Shapes, rows_of, sizes_of


def encode(levels: np.ndarray, shapes: Shapes) -> bytes:
    """The bytes of `levels` (m,) int64 below 2**31 in magnitude, those of the arrays of `shapes` one after another."""
    return rows.encode(levels, np.array(sizes_of(shapes)), np.array(rows_of(shapes)))


def decode(payload: bytes, start: int, shapes: Shapes) -> np.ndarray:
    """The levels (m,) int64 from byte `start` to the end. PayloadError on bytes that `encode` does not write."""
    return rows.decode(payload, start, np.array(sizes_of(shapes)), np.array(rows_of(shapes)))

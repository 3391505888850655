"""Calls of codebooks.c."""

from ctypes import c_int32, c_int64
from typing import Tuple

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.reference import codebooks as reference

_stripes = Function(
    "edgekit_stripes", array("f4"), array("i4"), array("f4"), c_int64, c_int64, c_int64, c_int64, c_int64, array("f8"),
    array("f8"), array("i8"), array("f4"), array("f8"), result=c_int32,
)  # fmt: skip


def stripes(
    feature: np.ndarray, codes: np.ndarray, books: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `edgekit.codecs.entropy.reference.codebooks.stripes` gives."""
    groups, words, width = books.shape
    n, area = len(codes), codes[0, 0].size
    sums, counts = np.zeros(books.shape), np.zeros((groups, words), dtype=np.int64)
    errors, spreads = np.zeros((groups, n * area), dtype=np.float32), np.empty(groups)
    given = (np.ascontiguousarray(feature), np.ascontiguousarray(codes), np.ascontiguousarray(books))
    if _stripes(*given, n, groups, width, area, words, np.empty(words * width), sums, counts, errors, spreads):
        return reference.stripes(feature, codes, books)
    return sums, counts, errors, spreads

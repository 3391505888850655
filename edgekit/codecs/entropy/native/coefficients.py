"""Calls of coefficients.c."""

from ctypes import c_double, c_int64
from typing import Tuple

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array

_measure = Function("edgekit_measure", array("f4"), c_int64, c_int64, array("f8"), array("f4"))
_find = Function(
    "edgekit_find", array("f4"), c_int64, c_int64, c_int64, array("f4"), array("i4"), array("i8"), result=c_int64
)
_quantise = Function(
    "edgekit_quantise", array("f4"), c_int64, c_int64, c_int64, array("f4"), array("i8"), array("f4"), array("f4"),
    array("i4"), c_int64, array("i8"), array("i8"), array("i8"), array("i8"), array("f4"), array("f4"), array("f4"),
)  # fmt: skip
_restore = Function(
    "edgekit_restore", array("i8"), array("i8"), c_int64, c_int64, c_int64, c_int64, array("i8"), array("f4"),
    array("f4"), c_double, c_double, c_double, array("f4"),
)  # fmt: skip


def measure(rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """What `edgekit.codecs.entropy.reference.coefficients.measure` gives."""
    squares, largest = np.empty(len(rows), dtype=np.float64), np.empty(len(rows), dtype=np.float32)
    _measure(rows, *rows.shape, squares, largest)
    return squares, largest


def quantise(
    coefficients: np.ndarray, units: np.ndarray, order: np.ndarray, weights: np.ndarray, scales: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `edgekit.codecs.entropy.reference.coefficients.quantise` gives."""
    area = coefficients.shape[2]
    found, counts = np.empty(coefficients.size + 1, dtype=np.int32), np.zeros(area, dtype=np.int64)
    sent = _find(coefficients, *coefficients.shape, units, found, counts)
    places, levels = np.empty((2, sent), dtype=np.int64)
    sizes, own, back = np.empty((3, sent), dtype=np.float32)
    first = np.empty(area, dtype=np.int64)
    _quantise(
        coefficients, *coefficients.shape, units, order, weights, scales, found, sent, counts, first, places, levels,
        sizes, own, back,
    )  # fmt: skip
    return places, levels, sizes, own, back


def restore(
    places: np.ndarray,
    levels: np.ndarray,
    order: np.ndarray,
    weights: np.ndarray,
    scales: Tuple[np.ndarray, np.ndarray],
    unit: float,
    excess: float,
    most: float,
) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.coefficients.restore` gives."""
    shape = (len(scales[0]), len(scales[1]), len(order))
    coefficients = np.zeros(shape, dtype=np.float32)
    _restore(
        places, levels, len(places), *shape, order, weights, np.concatenate(scales), unit, excess, most, coefficients
    )
    return coefficients

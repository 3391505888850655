"""Calls of coefficients.c."""

from ctypes import c_double, c_int64
from typing import Tuple

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array

_measure = Function("edgekit_measure", array("f4"), c_int64, c_int64, array("f8"), array("f4"))
_quantise = Function(
    "edgekit_quantise", array("f4"), c_int64, c_int64, c_int64, array("f4"), array("i8"), array("f4"), array("f4"),
    array("i8"), array("i8"), array("i8"), array("i8"), array("i8"), array("f4"), array("f4"), array("f4"),
    result=c_int64,
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
    count, area = coefficients.size, coefficients.shape[2]
    found, places, levels = np.empty((3, count + 1), dtype=np.int64)
    sizes, own, back = np.empty((3, count), dtype=np.float32)
    numbers = np.empty((2, area), dtype=np.int64)
    sent = _quantise(
        coefficients, *coefficients.shape, units, order, weights, scales, found, *numbers, places, levels, sizes, own,
        back,
    )  # fmt: skip
    return places[:sent], levels[:sent], sizes[:sent], own[:sent], back[:sent]


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

"""Coefficients of gradients <-> levels, see `edgekit.codecs.gradients.dct`."""

from typing import Tuple

import numpy as np


def measure(rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """For each of `rows` (m,k) f32: the sum of squares, (m,) f64, and the largest magnitude, (m,) f32."""
    squares = np.square(rows, dtype=np.float64).sum(axis=1)
    return squares, np.maximum(rows.max(axis=1), -rows.min(axis=1))


def quantise(
    coefficients: np.ndarray, units: np.ndarray, order: np.ndarray, weights: np.ndarray, scales: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is sent of `coefficients` (n,C,f) f32: those at least as long as their image's unit, of `units` (n,) f32.

    (k,) int64 each, the rising places in the order frequency, image, channel, frequencies as `order` (f,) has them, and
    the levels: whole units, cut off. Then (k,) f32 each, the coefficients' magnitudes, their units, and
    the scales of their channels, of `scales` (C,) f32, over the weights of their frequencies, of `weights` (f,) f32.
    """
    n, channels, area = coefficients.shape
    bands = coefficients.reshape(-1, area).T[order].reshape(-1)
    own = np.tile(np.repeat(units, channels), area)
    levels = (bands / own).astype(np.int64)
    places = np.flatnonzero(levels)
    back = (scales / weights[order][:, None]).reshape(-1)[places // (n * channels) * channels + places % channels]
    return places, levels[places], np.abs(bands[places]), own[places], back


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
    """(n,C,f) f32: the coefficients that `levels` stand for at `places`, and 0 elsewhere; the inverse of `quantise`.

    A level l is ``|l| + excess`` units long, with its sign. A coefficient was multiplied by its frequency's weight, of
    `weights` (f,) f32, and divided by the scales of its image and its channel, of `scales` (n,) and (C,) f32. No
    magnitude is above `most`.
    """
    images, channels = scales
    planes = len(images) * len(channels)
    frequencies, plane = order[places // planes], places % planes
    values = (levels + np.sign(levels) * excess) * unit / weights[frequencies]
    values *= images[plane // len(channels)].astype(np.float64) * channels[plane % len(channels)]
    coefficients = np.zeros((planes, len(order)), dtype=np.float32)
    coefficients[plane, frequencies] = np.clip(values, -most, most)
    return coefficients.reshape(len(images), len(channels), -1)

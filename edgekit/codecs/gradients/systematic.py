"""Systematic rounding: unbiased, with errors that cancel between neighbours."""

import numpy as np


def systematic(scaled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,C,h,w) int32: `scaled` (n,C,h,w) f32 rounded up or down, each with expectation exactly itself.

    The running sum along each image's channel, rows in turn from left to right and from right to left, is rounded
    with one random offset, and the differences of that are the result (systematic sampling: Madow 1949). Each
    element is rounded as one alone would be; but the sum over any stretch is within 1 of the truth, and a layer's
    weight gradient, a sum over positions of errors times inputs that change little from one to the next, loses a
    third of its variance.
    """
    n, channels, h, w = scaled.shape
    turned = scaled.copy()
    turned[:, :, 1::2] = scaled[:, :, 1::2, ::-1]
    sums = np.zeros((n * channels, h * w + 1))
    np.cumsum(turned.reshape(n * channels, h * w), axis=1, out=sums[:, 1:])
    sums += rng.random((n * channels, 1))
    np.floor(sums, out=sums)
    levels = np.diff(sums, axis=1).astype(np.int32).reshape(scaled.shape)
    levels[:, :, 1::2] = levels[:, :, 1::2, ::-1].copy()
    return levels

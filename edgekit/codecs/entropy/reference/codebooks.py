"""Sums over the stripes of each codeword, for `edgekit.codecs.codebook`."""

from typing import Tuple

import numpy as np


def stripes(
    feature: np.ndarray, codes: np.ndarray, books: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of `feature` (n,C,h,w) f32, `codes` (n,G,h,w) int32 of its stripes, and `books` (G,words,C/G) f32:

    - (G,words,C/G) f64 and (G,words) int64, the sum of each codeword's stripes, and how many they are;
    - (G,n*h*w) f32, the squared error of each stripe;
    - (G,) f64, the squared deviation of each group's stripes from their mean.

    All is added up in one order, in which no other code has to add. IndexError for a code that is no codeword's.
    """
    groups, words, width = books.shape
    n, area = len(codes), codes[0, 0].size
    if not 0 <= codes.min() <= codes.max() < words:
        raise IndexError("codes {} to {} of {} codewords".format(codes.min(), codes.max(), words))
    sums, counts = np.empty(books.shape), np.empty((groups, words), dtype=np.int64)
    errors, spreads = np.zeros((groups, n, area), dtype=np.float32), np.empty(groups)
    for g in range(groups):
        picked = codes[:, g].reshape(n, 1, area).astype(np.int64)
        counts[g] = np.bincount(picked.reshape(-1), minlength=words)
        values = feature[:, g * width : (g + 1) * width].reshape(n, width, area)
        cells = picked * width + np.arange(width)[:, None]
        flat = cells.reshape(-1)
        sums[g] = np.bincount(flat, values.reshape(-1), words * width).reshape(words, width)
        squares = np.bincount(flat, np.square(values, dtype=np.float64).reshape(-1), words * width)
        off = np.square(values - books[g].take(cells))
        for c in range(width):
            errors[g] += off[:, c]
        # numpy's own `sum` goes in another order.
        totals = np.cumsum(sums[g], axis=0)[-1]
        spreads[g] = np.cumsum(squares)[-1] - np.cumsum(totals * totals)[-1] / (n * area)
    return sums, counts, errors.reshape(groups, -1), spreads

"""k-means in numpy, by k-means++ and Lloyd's algorithm: it makes the first codebooks, on the host."""

from typing import Tuple

import numpy as np


def kmeans(points: np.ndarray, k: int, rng: np.random.Generator, iterations: int = 15) -> np.ndarray:
    """(k, d) f32 centres of `points` (n, d) f32; seeded by k-means++ (Arthur and Vassilvitskii, 2007).

    With fewer than k different points, some centres are equal.
    """
    return lloyd(points, _plus_plus(points, k, rng), iterations)


def lloyd(points: np.ndarray, first: np.ndarray, iterations: int) -> np.ndarray:
    """(k, d) f32 centres of `points` (n, d) f32, after `iterations` rounds of Lloyd's algorithm from `first`."""
    centres = first.copy()
    for _ in range(iterations):
        nearest = assign(points, centres)
        sums, counts = accumulate(points, nearest, len(centres))
        used = counts > 0
        centres[used] = sums[used] / counts[used, None]
        if not used.all():  # an empty centre moves to a point that is far from its own
            error = ((points - centres[nearest]) ** 2).sum(axis=1)
            # resize: with fewer points than empty centres, points are used again.
            centres[~used] = points[np.resize(np.argsort(-error), np.count_nonzero(~used))]
    return centres


def assign(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) index of the nearest centre of every point; the first among equally near ones."""
    return np.asarray(np.argmin((centres**2).sum(axis=1) / 2 - points @ centres.T, axis=1))


def accumulate(points: np.ndarray, nearest: np.ndarray, k: int) -> Tuple[np.ndarray, np.ndarray]:
    """(k, d) f32 sum and (k,) f32 count of the points assigned to each centre."""
    one_hot = (nearest == np.arange(k)[:, None]).astype(np.float32)
    return one_hot @ points, one_hot.sum(axis=1)


def _plus_plus(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    centres = np.empty((k, points.shape[1]), dtype=np.float32)
    centres[0] = points[rng.integers(len(points))]
    distance = ((points - centres[0]) ** 2).sum(axis=1)
    for i in range(1, k):
        total = distance.sum()
        chosen = rng.choice(len(points), p=distance / total) if total > 0 else rng.integers(len(points))
        centres[i] = points[chosen]
        distance = np.minimum(distance, ((points - centres[i]) ** 2).sum(axis=1))
    return centres

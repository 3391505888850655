"""Which channels share a codebook: by balanced spectral clustering of their correlations, or by significance.

This is SGQ's "channel-attention grouping": vector quantisation of a stripe loses least when its channels are correlated
(Zhou et al., NeurIPS 2022; the spectral form is this project's reading of the paper).
"""

from typing import Optional

import numpy as np

from edgekit.errors import UsageError

#: Orders of channels: by correlation, the network's own, by falling significance.
GROUPINGS = ("spectral", "contiguous", "significance")


def channel_order(
    grouping: str, features: np.ndarray, groups: int, significance: Optional[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """(C,) int64 order of channels for `groups` equal groups; `grouping` is one of `GROUPINGS`.

    `features` is (n,C,h,w) f32; `significance` (C,) f32 is needed for "significance" only.
    """
    if grouping == "spectral":
        return spectral_order(features, groups, rng)
    if grouping == "significance":
        if significance is None:
            raise UsageError("grouping by significance needs the significance of every channel, got none")
        return np.argsort(-significance, kind="stable").astype(np.int64)
    return np.arange(features.shape[1], dtype=np.int64)


def spectral_order(features: np.ndarray, groups: int, rng: np.random.Generator, restarts: int = 4) -> np.ndarray:
    """(C,) int64 order of channels for `groups` equal groups: group g holds channels ``order[g*C/groups:...]``.

    `features` is (n,C,h,w) f32; C must be a multiple of `groups`. It tries several random starts, improves each by
    swapping pairs of channels, and keeps the one with the largest sum of absolute correlations inside groups.
    """
    affinity = np.abs(correlation(features))
    np.fill_diagonal(affinity, 0)
    degree = np.maximum(affinity.sum(axis=1), 1e-12)
    scale = 1 / np.sqrt(degree)
    _, vectors = np.linalg.eigh(affinity * scale[:, None] * scale)
    embedding = vectors[:, -groups:]
    embedding = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    candidates = [_swap(_balanced(embedding, groups, rng), affinity) for _ in range(restarts)]
    best = max(candidates, key=lambda labels: inside(labels, affinity))
    return np.argsort(best, kind="stable").astype(np.int64)


def correlation(features: np.ndarray) -> np.ndarray:
    """(C,C) f32 correlation of channels over images and positions; 0 for a constant channel."""
    rows = features.transpose(1, 0, 2, 3).reshape(features.shape[1], -1)
    # In float32 the mean of a constant channel may be off by rounding, and that error would correlate with others.
    rows = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    norm = np.linalg.norm(rows, axis=1)
    rows /= np.where(norm > 0, norm, 1)[:, None]
    return np.asarray(rows @ rows.T)


def inside(labels: np.ndarray, affinity: np.ndarray) -> float:
    """Sum of `affinity` over pairs in the same group."""
    return float(affinity[labels[:, None] == labels].sum(dtype=np.float64))


def _balanced(embedding: np.ndarray, groups: int, rng: np.random.Generator, iterations: int = 10) -> np.ndarray:
    """(C,) group per channel, all groups equal: k-means whose assignment fills the nearest free group."""
    n = len(embedding)
    centres = embedding[rng.choice(n, groups, replace=False)]
    labels = np.zeros(n, dtype=np.int64)
    for _ in range(iterations):
        distance = (centres**2).sum(axis=1) - 2 * embedding @ centres.T
        free = np.full(groups, n // groups)
        # The channels that would lose most without their first choice choose first.
        ranked = np.sort(distance, axis=1)
        for channel in np.argsort(ranked[:, 0] - ranked[:, min(1, groups - 1)]):
            choice = distance[channel].argmin()
            labels[channel] = choice
            free[choice] -= 1
            if not free[choice]:
                distance[:, choice] = np.inf
        centres = np.stack([embedding[labels == g].mean(axis=0) for g in range(groups)])
    return labels


def _swap(labels: np.ndarray, affinity: np.ndarray) -> np.ndarray:
    """(C,) group per channel, improved by swapping channels: of two groups the pair that gains most, until none gains.

    A swap changes nothing in the other groups, so only pairs with a changed group are looked at again.
    """
    labels = labels.copy()
    groups = int(labels.max()) + 1
    members = [np.flatnonzero(labels == g) for g in range(groups)]
    to_group = affinity @ np.eye(groups, dtype=affinity.dtype)[labels]
    changed = np.ones(groups, dtype=bool)
    while changed.any():
        looked, changed = changed, np.zeros(groups, dtype=bool)
        for a in range(groups):
            for b in range(a + 1, groups):
                while looked[a] or looked[b] or changed[a] or changed[b]:
                    first, second = members[a], members[b]
                    gain = (to_group[first, b] - to_group[first, a])[:, None]
                    gain = gain + (to_group[second, a] - to_group[second, b])
                    gain -= 2 * affinity[np.ix_(first, second)]
                    i, j = divmod(int(gain.argmax()), len(second))
                    if gain[i, j] <= 1e-5:
                        break
                    moved = affinity[:, second[j]] - affinity[:, first[i]]
                    to_group[:, a] += moved
                    to_group[:, b] -= moved
                    first[i], second[j] = second[j], first[i]
                    changed[a] = changed[b] = True
    for g in range(groups):
        labels[members[g]] = g
    return labels

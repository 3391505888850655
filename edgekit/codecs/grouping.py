"""Which channels share a codebook: balanced spectral clustering of their correlations.

SGQ's "channel-attention grouping": a stripe codes best when its channels move together (algorithms of the SGQ paper,
Zhou et al., NeurIPS 2022; the spectral form is this project's reading of it).
"""

import numpy as np


def spectral_order(features: np.ndarray, groups: int, rng: np.random.Generator, restarts: int = 4) -> np.ndarray:
    """(C,) int64 order of channels for `groups` equal groups: group g holds channels ``order[g*C/groups:...]``.

    `features` is (n,C,h,w) f32; C must be a multiple of `groups`. Of several restarts the grouping with the largest
    sum of absolute correlations inside groups is kept, then improved by swapping pairs of channels.
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
    """(C,C) f64 correlation of channels over images and positions; a channel that never moves has none."""
    rows = features.transpose(1, 0, 2, 3).reshape(features.shape[1], -1).astype(np.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1)
    rows /= np.where(norm > 0, norm, 1)[:, None]
    return np.asarray(rows @ rows.T)


def inside(labels: np.ndarray, affinity: np.ndarray) -> float:
    """Sum of `affinity` over pairs in the same group."""
    return float(affinity[labels[:, None] == labels].sum())


def _balanced(embedding: np.ndarray, groups: int, rng: np.random.Generator, iterations: int = 10) -> np.ndarray:
    """(C,) group per channel, all groups equal: k-means whose assignment fills the nearest free group."""
    n = len(embedding)
    centres = embedding[rng.choice(n, groups, replace=False)]
    labels = np.zeros(n, dtype=np.int64)
    for _ in range(iterations):
        distance = ((embedding[:, None] - centres) ** 2).sum(axis=2)
        free = np.full(groups, n // groups)
        # Channels that would lose most by not getting their first choice choose first.
        ranked = np.sort(distance, axis=1)
        for channel in np.argsort(ranked[:, 0] - ranked[:, min(1, groups - 1)]):
            choice = np.argmin(np.where(free > 0, distance[channel], np.inf))
            labels[channel] = choice
            free[choice] -= 1
        centres = np.stack([embedding[labels == g].mean(axis=0) for g in range(groups)])
    return labels


def _swap(labels: np.ndarray, affinity: np.ndarray, sweeps: int = 200) -> np.ndarray:
    """Swaps the pair of channels that gains most, until none gains."""
    labels = labels.copy()
    for _ in range(sweeps):
        one_hot = np.eye(labels.max() + 1)[labels]
        to_group = affinity @ one_hot
        here = to_group[np.arange(len(labels)), labels]
        move = to_group[:, labels] - here[:, None]  # [i, j]: what i gains by going to j's group
        gain = move + move.T - 2 * affinity
        gain[labels[:, None] == labels] = 0
        i, j = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[i, j] <= 1e-9:
            break
        labels[i], labels[j] = labels[j], labels[i]
    return labels

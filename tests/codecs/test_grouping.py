"""Which channels share a codebook."""

import numpy as np
import pytest

from edgekit.codecs.grouping import correlation, inside, spectral_order


def planted(groups, size, noise, seed=0, shape=(6, 5, 5)):
    """(features, label of every channel): channels of a group follow one hidden signal, some of them upside down."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(groups), size))
    n, h, w = shape
    signals = rng.normal(size=(n, groups, h, w))
    sign = rng.choice([-1, 1], groups * size)[:, None, None]
    features = sign * signals[:, labels] + noise * rng.normal(size=(n, groups * size, h, w))
    return features.astype(np.float32), labels


def found(order, labels, groups):
    """The planted labels in every group of `order`."""
    return [set(group) for group in labels[order].reshape(groups, -1)]


@pytest.mark.parametrize(("groups", "size"), [(2, 2), (4, 4), (8, 4), (4, 16), (3, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_found(groups, size, seed):
    features, labels = planted(groups, size, noise=0.5, seed=seed)
    order = spectral_order(features, groups, np.random.default_rng(seed))
    assert all(len(group) == 1 for group in found(order, labels, groups))


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (8, 1), (8, 8), (12, 4), (32, 8)])
def test_the_order_is_a_permutation(channels, groups):
    features = np.random.default_rng(0).normal(size=(4, channels, 3, 3)).astype(np.float32)
    order = spectral_order(features, groups, np.random.default_rng(0))
    assert order.dtype == np.int64 and sorted(order) == list(range(channels))


def test_groups_are_equal_even_where_the_correlations_are_not():
    """Six channels move together, two alone: groups of four all the same."""
    features, _ = planted(1, 6, noise=0.1)
    alone = np.random.default_rng(9).normal(size=(6, 2, 5, 5)).astype(np.float32)
    order = spectral_order(np.concatenate([features, alone], axis=1), 2, np.random.default_rng(0))
    together = [sum(channel < 6 for channel in group) for group in order.reshape(2, 4)]
    assert sorted(together) == [2, 4]


def test_more_is_inside_groups_than_by_chance():
    rng = np.random.default_rng(100)
    features, _ = planted(8, 4, noise=1.5, seed=3)
    affinity = np.abs(correlation(features))
    position = np.repeat(np.arange(8), 4)
    labels = np.empty(32, dtype=np.int64)
    labels[spectral_order(features, 8, np.random.default_rng(0))] = position
    assert inside(labels, affinity) > max(inside(rng.permutation(position), affinity) for _ in range(200))


@pytest.mark.parametrize("seed", range(8))
def test_no_swap_of_two_channels_would_gain(seed):
    features, _ = planted(4, 4, noise=4.0, seed=seed)
    affinity = np.abs(correlation(features))
    labels = np.empty(16, dtype=np.int64)
    labels[spectral_order(features, 4, np.random.default_rng(0))] = np.repeat(np.arange(4), 4)
    here = inside(labels, affinity)
    for i in range(16):
        for j in range(i):
            swapped = labels.copy()
            swapped[[i, j]] = labels[[j, i]]
            assert inside(swapped, affinity) <= here + 1e-6


def test_channels_that_never_move_are_taken():
    features, _ = planted(2, 3, noise=0.1)
    features[:, :2] = 0
    features[:, 2] = 7
    order = spectral_order(features, 2, np.random.default_rng(0))
    assert sorted(order) == list(range(6))
    assert sorted(spectral_order(np.zeros((2, 8, 3, 3), np.float32), 4, np.random.default_rng(0))) == list(range(8))


def test_the_seed_decides_and_nothing_else():
    features, _ = planted(4, 4, noise=2.0)
    first, again = (spectral_order(features, 4, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_correlation_is_numpys():
    features = np.random.default_rng(0).normal(size=(3, 5, 4, 4)).astype(np.float32)
    features[:, 3] = 2 * features[:, 1] + 5
    rows = features.transpose(1, 0, 2, 3).reshape(5, -1)
    np.testing.assert_allclose(correlation(features), np.corrcoef(rows), atol=1e-6)
    features[:, 0] = 4
    assert not correlation(features)[0].any()

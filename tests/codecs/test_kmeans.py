"""The first codebooks."""

import numpy as np
import pytest

from edgekit.codecs import kmeans as module
from edgekit.codecs.kmeans import accumulate, assign, kmeans


def blobs(k, n, d, seed=0):
    """n points each around k far corners, in mixed order."""
    rng = np.random.default_rng(seed)
    corners = 100 * rng.permutation(
        np.eye(d + 1, k, dtype=np.float32).T[:, :d] + np.arange(k, dtype=np.float32)[:, None]
    )
    points = np.repeat(corners, n, axis=0) + rng.normal(size=(k * n, d)).astype(np.float32)
    return corners, rng.permutation(points)


def distortion(points, centres):
    return float(((points[:, None] - centres) ** 2).sum(axis=2).min(axis=1).mean())


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_found(seed):
    corners, points = blobs(k=6, n=40, d=3, seed=seed)
    centres = kmeans(points, 6, np.random.default_rng(seed))
    assert centres.shape == (6, 3) and centres.dtype == np.float32
    distance = np.linalg.norm(corners[:, None] - centres, axis=2)
    assert sorted(distance.argmin(axis=1)) == list(range(6))
    assert distance.min(axis=1).max() < 1


def test_every_centre_is_the_mean_of_its_points_in_the_end():
    points = np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32)
    centres = kmeans(points, 4, np.random.default_rng(0), iterations=200)
    nearest = assign(points, centres)
    for k in range(4):
        np.testing.assert_allclose(centres[k], points[nearest == k].mean(axis=0), atol=1e-4)


def test_iterations_lower_the_distortion():
    points = np.random.default_rng(2).normal(size=(500, 4)).astype(np.float32)
    errors = [distortion(points, kmeans(points, 16, np.random.default_rng(0), iterations=n)) for n in (0, 1, 15)]
    assert errors[0] > errors[1] > errors[2]
    random = points[np.random.default_rng(0).choice(500, 16, replace=False)]
    assert errors[2] < 0.8 * distortion(points, random)


def test_the_seed_decides():
    points = np.random.default_rng(3).normal(size=(100, 3)).astype(np.float32)
    first, again, other = (kmeans(points, 8, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n", [1, 2, 4, 15])
def test_fewer_points_than_centres(n):
    points = np.arange(n * 3, dtype=np.float32).reshape(n, 3) ** 2
    centres = kmeans(points, 16, np.random.default_rng(0))
    assert centres.shape == (16, 3)
    assert distortion(points, centres) == 0
    assert {tuple(c) for c in centres} == {tuple(p) for p in points}  # spares repeat points


def test_an_empty_centre_moves_to_a_badly_coded_point(monkeypatch):
    monkeypatch.setattr(module, "_plus_plus", lambda points, k, rng: np.zeros((k, 1), np.float32))
    points = np.array([[1], [2], [3], [50], [2], [90]], np.float32)
    centres = kmeans(points, 3, np.random.default_rng(0), iterations=1)
    assert centres[0] == pytest.approx(points.mean()) and sorted(centres[1:].reshape(-1)) == [50, 90]


def test_all_points_alike():
    points = np.full((50, 2), 3, dtype=np.float32)
    np.testing.assert_array_equal(kmeans(points, 4, np.random.default_rng(0)), np.full((4, 2), 3, np.float32))


def test_the_points_are_left_alone():
    points = np.random.default_rng(4).normal(size=(40, 2)).astype(np.float32)
    before = points.copy()
    kmeans(points, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(points, before)


def test_assign_takes_the_nearest_and_of_equals_the_first():
    rng = np.random.default_rng(5)
    points, centres = rng.normal(size=(200, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    expected = ((points[:, None].astype(float) - centres) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(assign(points, centres), expected)
    twins = np.array([[1, 1], [0, 0], [1, 1], [0, 0]], np.float32)
    assert assign(np.array([[1, 1], [0, 0]], np.float32), twins).tolist() == [0, 1]


def test_accumulate_sums_and_counts():
    points = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    sums, counts = accumulate(points, np.array([2, 0, 2]), 4)
    assert sums.tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]] and counts.tolist() == [1, 0, 2, 0]
    assert sums.dtype == counts.dtype == np.float32

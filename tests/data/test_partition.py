"""Shares among devices and class-balanced subsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data.partition import parse_share, shares, stratified
from edgekit.errors import UsageError

LABELS = np.random.default_rng(0).integers(0, 10, 1000)


def _largest_class(parts):
    """Mean over devices of the share that a device's most frequent class has."""
    return np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts])


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 12),
    scheme=st.one_of(st.just("iid"), st.floats(0.3, 1e6).map("dirichlet:{}".format)),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(200, 400),
)
def test_shares_hold_every_index_once(n, scheme, seed, size):
    parts = shares(LABELS[:size], n, scheme, seed)
    assert len(parts) == n and all(len(part) for part in parts)
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(size))


def test_iid_shares_are_as_large_and_alike():
    parts = shares(LABELS, 3, "iid", 0)
    assert sorted(len(part) for part in parts) == [333, 333, 334]
    assert _largest_class(parts) < 0.2


def test_a_small_alpha_concentrates_classes_and_a_large_one_does_not():
    few, some, even = (_largest_class(shares(LABELS, 5, f"dirichlet:{alpha}", 0)) for alpha in ("0.05", "1", "1e5"))
    assert few > some > even and even < 0.2
    for part in shares(LABELS, 5, "dirichlet:1e6", 0):
        assert np.abs(np.bincount(LABELS[part]) - np.bincount(LABELS) / 5).max() <= 2


def test_proportions_follow_the_dirichlet_distribution():
    labels = np.zeros(1000, dtype=np.int64)
    first = np.array([len(shares(labels, 2, "dirichlet:2", seed)[0]) for seed in range(1500)]) / 1000
    # Beta(2, 2): mean 1/2, variance 1/20.
    assert abs(first.mean() - 0.5) < 0.03 and abs(first.var() - 0.05) < 0.006


@pytest.mark.parametrize("scheme", ["iid", "dirichlet:0.5"])
def test_shares_are_seeded(scheme):
    first, again, other = (shares(LABELS, 4, scheme, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_shares_are_the_same_for_ever():
    labels = np.arange(12) % 3
    assert [part.tolist() for part in shares(labels, 3, "iid", 1)] == [[2, 3, 4, 10], [0, 1, 6, 7], [5, 8, 9, 11]]
    assert [part.tolist() for part in shares(labels, 2, "dirichlet:0.5", 1)] == [
        [0, 1, 2, 4, 6, 7, 9, 11],
        [3, 5, 8, 10],
    ]


@pytest.mark.parametrize("alpha", ["0.001", "1e6"])
def test_extreme_alphas_work_for_one_device(alpha):
    for seed in range(20):
        assert len(shares(LABELS, 1, f"dirichlet:{alpha}", seed)[0]) == 1000


def test_a_device_without_images_is_refused():
    with pytest.raises(UsageError, match="in 100 draws: take fewer devices"):
        shares(np.zeros(500, dtype=np.int64), 20, "dirichlet:0.001", 0)


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_an_impossible_number_of_devices_is_refused(n):
    with pytest.raises(UsageError, match=f"1000 images among {n} devices"):
        shares(LABELS, n, "iid", 0)


@pytest.mark.parametrize(
    "scheme", ["", "IID", "iid:1", "dirichlet", "dirichlet:", "dirichlet:x", "dirichlet:0", "dirichlet:-1",
               "dirichlet:nan", "dirichlet:inf", "dirichlet:1e-9", "zipf:1"]
)  # fmt: skip
def test_a_bad_scheme_gets_an_example(scheme):
    with pytest.raises(UsageError, match=r"expected iid or dirichlet:ALPHA.*dirichlet:0\.5"):
        shares(LABELS, 2, scheme, 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UsageError, match="seed"):
        shares(LABELS, 2, "iid", seed)


@pytest.mark.parametrize(("text", "share"), [("0/1", (0, 1)), ("0/2", (0, 2)), ("11/12", (11, 12))])
def test_parse_share(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize(
    "text", ["", "1", "2/2", "-1/2", "0/0", "0/2 ", "0/2\n", "0//2", "a/b", "1.0/2", "\u0660/\u0662"]
)
def test_a_bad_share_gets_an_example(text):
    with pytest.raises(UsageError, match="for example 0/2"):
        parse_share(text)


@given(text=st.text(max_size=30))
def test_any_text_is_a_share_or_a_usage_error(text):
    try:
        index, count = parse_share(text)
    except UsageError:
        return
    assert 0 <= index < count


@given(labels=st.lists(st.integers(0, 5), max_size=60), count=st.integers(0, 70), seed=st.integers(0, 99))
def test_stratified_is_as_even_as_the_classes_allow(labels, count, seed):
    labels = np.array(labels, dtype=np.int64)
    chosen = stratified(labels, count, seed)
    assert len(chosen) == min(count, len(labels)) and (np.diff(chosen) > 0).all()
    have, got = np.bincount(labels, minlength=6), np.bincount(labels[chosen], minlength=6)
    for fewer in np.flatnonzero(got < have):
        assert got.max() - got[fewer] <= 1


def test_stratified_draws_by_seed():
    labels = np.arange(100) % 10
    drawn = np.stack([stratified(labels, 15, seed) for seed in range(200)])
    assert len({tuple(row) for row in drawn}) == 200
    # Every index is drawn about 30 times of 200.
    counts = np.bincount(drawn.ravel(), minlength=100)
    assert counts.min() > 10 and counts.max() < 55

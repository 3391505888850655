"""Levels of rows: they come back, cost what they should, and any bytes are read or refused."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.entropy import levels as places
from edgekit.codecs.entropy import rows
from edgekit.errors import PayloadError, ShapeError, UsageError

pytestmark = pytest.mark.usefixtures("coder")
SIZES, ROWS = np.array([6 * 27, 5, 4 * 9]), np.array([6, 1, 4])


def drawn(spread: float = 3, share: float = 0.5, sizes: np.ndarray = SIZES) -> np.ndarray:
    """Levels of which about a share is not 0."""
    rng = np.random.default_rng(0)
    count = int(sizes.sum())
    return np.rint(rng.laplace(scale=spread, size=count) * (rng.random(count) < share)).astype(np.int64)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, sizes and rows."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 14)), max_size=4))
    lines = np.array([shape[0] for shape in shapes], dtype=np.int64)
    sizes = np.array([shape[0] * shape[1] for shape in shapes], dtype=np.int64)
    large = st.integers(-(2**31) + 1, 2**31 - 1)
    value = st.just(0) | st.integers(-3, 3) | st.integers(-300, 300) | large
    count = int(sizes.sum())
    levels = draw(
        st.lists(draw(st.sampled_from([value, st.just(0), st.integers(-1, 1)])), min_size=count, max_size=count)
    )
    return np.array(levels, dtype=np.int64), sizes, lines


@given(given=arrays())
@settings(deadline=None, max_examples=150)
def test_levels_come_back(given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    levels, sizes, lines = given
    again = rows.decode(b"xy" + rows.encode(levels, sizes, lines), 2, sizes, lines)
    assert again.dtype == np.int64
    np.testing.assert_array_equal(again, levels)


def test_the_bytes() -> None:
    """Written once: other bytes are another format."""
    digest = hashlib.sha256()
    for spread, share in ((3, 0.5), (1, 0.05), (40, 1), (1e6, 0.3)):
        digest.update(rows.encode(drawn(spread, share), SIZES, ROWS))
    assert digest.hexdigest() == "1caec6f199df676742c4c84e218cff9b828b3119d9c57e5bc1768e44b44abbcd"


def test_no_levels_are_no_bytes() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert rows.encode(nothing, nothing, nothing) == rows.encode(nothing, np.array([0]), np.array([0])) == b""
    assert len(rows.decode(b"xy", 2, nothing, nothing)) == 0
    with pytest.raises(PayloadError, match="1 B of no levels") as caught:
        rows.decode(b"xyz", 2, nothing, nothing)
    assert caught.value.offset == 2


def test_rows_of_zeros_cost_next_to_nothing() -> None:
    levels = np.zeros(1000 * 90, dtype=np.int64)
    assert len(rows.encode(levels, np.array([90_000]), np.array([1000]))) < 20


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_scattered_levels_take_what_their_entropy_says(share: float) -> None:
    """Independent of one another, so that nothing around them helps."""
    rng = np.random.default_rng(0)
    levels = rng.choice([-1, 0, 1], 20_000, p=[share / 2, 1 - share, share / 2])
    bits = -share * np.log2(share / 2) - (1 - share) * np.log2(1 - share)
    assert len(rows.encode(levels, np.array([20_000]), np.array([20]))) < 1.04 * bits * len(levels) / 8 + 60


def test_active_rows_and_columns_are_made_use_of() -> None:
    """Filters and inputs that are active or not: fewer bytes than of places without contexts."""
    rng = np.random.default_rng(0)
    active = np.outer(rng.random(60) < 0.3, np.repeat(rng.random(30) < 0.3, 9))
    levels = (active * rng.integers(-1, 2, active.shape)).reshape(-1)
    size = np.array([levels.size])
    chosen = np.flatnonzero(levels)
    assert len(rows.encode(levels, size, np.array([60]))) < 0.7 * len(places.encode(chosen, levels[chosen], size))


@pytest.mark.parametrize("level", [2**31, -(2**31), -(2**63), 2**63 - 1])
def test_larger_levels_are_refused(level: int) -> None:
    with pytest.raises(UsageError, match="below 2\\*\\*31"):
        rows.encode(np.array([0, level]), np.array([2]), np.array([1]))


@pytest.mark.parametrize(("sizes", "lines"), [([6], [4]), ([6], [0]), ([-6], [1]), ([6], [-2])])
def test_rows_of_different_lengths_are_refused(sizes: list[int], lines: list[int]) -> None:
    with pytest.raises(ShapeError, match="rows of one length"):
        rows.decode(b"", 0, np.array(sizes), np.array(lines))


def test_levels_that_are_not_the_sum_of_the_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected \(6,\)"):
        rows.encode(np.zeros(5, dtype=np.int64), np.array([6]), np.array([1]))


@given(payload=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes(payload: bytes) -> None:
    try:
        assert len(rows.decode(payload, 0, SIZES, ROWS)) == SIZES.sum()
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_payload(data: st.DataObject) -> None:
    payload = bytearray(rows.encode(drawn(), SIZES, ROWS))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(payload), bytes(payload[: data.draw(st.integers(0, len(payload) - 1))])):
        try:
            assert len(rows.decode(damaged, 0, SIZES, ROWS)) == SIZES.sum()
        except PayloadError as error:
            assert 0 <= error.offset <= len(damaged)

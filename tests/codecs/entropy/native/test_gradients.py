"""The compiled kernels of gradients against those of numpy: the same levels, bytes and floats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.entropy.native import coefficients as native_coefficients
from edgekit.codecs.entropy.native import levels as native_levels
from edgekit.codecs.entropy.reference import coefficients, levels
from tests.codecs.entropy.native.test_equal import alike, damaged

pytestmark = pytest.mark.usefixtures("loads")


@st.composite
def sparse_levels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, levels and sizes of segments, of which some are empty, full, or have long gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    sizes = np.array(draw(st.lists(st.integers(0, 300) | st.integers(0, 1 << 26), min_size=1, max_size=9)))
    starts = np.cumsum(sizes) - sizes
    few = np.minimum(sizes, rng.integers(0, 90, len(sizes)))
    drawn = [start + rng.integers(0, size, some) for start, size, some in zip(starts, sizes, few, strict=True)]
    places = np.unique(np.concatenate(drawn))
    largest = 1 << rng.integers(1, draw(st.integers(2, 42)), len(places))
    values = rng.integers(1, largest, endpoint=True) * rng.choice([-1, 1], len(places))
    return places, values, sizes


@settings(max_examples=300, deadline=None)
@given(data=st.data(), known=sparse_levels())
def test_levels(data: st.DataObject, known: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    places, values, sizes = known
    payload = levels.encode(places, values, sizes, 256)
    assert native_levels.encode(places, values, sizes, 256) == payload
    start = data.draw(st.integers(0, 3))
    whole = bytes(start) + payload
    for found in (levels.decode(whole, start, sizes), native_levels.decode(whole, start, sizes)):
        np.testing.assert_array_equal(found, (places, values))
    alike(native_levels, levels, "decode", bytes(start) + data.draw(damaged(payload)), start, sizes)


@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=400), sizes=st.lists(st.integers(0, 200), min_size=1, max_size=5))
def test_levels_of_any_bytes(payload: bytes, sizes: list[int]) -> None:
    alike(native_levels, levels, "decode", payload, 0, np.array(sizes))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), length=st.integers(1, 700), seed=st.integers(0, 99))
def test_measure(rows: int, length: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(rows, length)).astype(np.float32)
    for ours, theirs in zip(native_coefficients.measure(values), coefficients.measure(values), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 5), channels=st.integers(1, 5), area=st.integers(1, 40), seed=st.integers(0, 99))
def test_quantise_and_restore(n: int, channels: int, area: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given_ = (rng.laplace(size=(n, channels, area)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    units = (np.abs(given_).max(axis=(1, 2)) * rng.random(n).astype(np.float32) ** 3).astype(np.float32)
    units = np.maximum(units, np.float32(1e-6))
    # The largest of the first image is as long as a unit, exactly.
    units[0] = np.abs(given_[0]).max()
    order = rng.permutation(area)
    scales = rng.random(n).astype(np.float32), rng.random(channels).astype(np.float32)
    weights = rng.random(area).astype(np.float32) + np.float32(0.1)
    shares = given_, units, order, weights, scales[1]
    sent = coefficients.quantise(*shares)
    for ours, theirs in zip(native_coefficients.quantise(*shares), sent, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    assert len(sent[0])
    known = sent[0], sent[1], order, weights, scales, 0.7, float(rng.random()), 10.0 ** int(rng.integers(0, 6))
    ours, theirs = native_coefficients.restore(*known), coefficients.restore(*known)
    np.testing.assert_array_equal(ours, theirs, strict=True)
    assert theirs.any()

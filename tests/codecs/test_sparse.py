"""sparse gradients: the rounding, the levels' bytes, and what is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.codecs.entropy import fields, gaps
from edgekit.codecs.entropy.levels import decode, encode
from edgekit.codecs.entropy.slots import TOTAL
from edgekit.codecs.gradients.sparse import Sparse, segments
from edgekit.codecs.gradients.systematic import systematic
from edgekit.errors import PayloadError, UsageError

pytestmark = pytest.mark.usefixtures("coder")
SHAPE = (4, 16, 8, 8)


def heavy_tailed(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Like a gradient: most of it small, images of different magnitude."""
    rng = np.random.default_rng(seed)
    images = np.exp(rng.normal(size=(shape[0], 1, 1, 1)))
    return (rng.laplace(size=shape) * images * (rng.random(shape) < 0.3)).astype(np.float32)


def coded(flat: np.ndarray, sizes: np.ndarray) -> bytes:
    """The bytes of all levels, 0 among them."""
    places = np.flatnonzero(flat)
    return encode(places, flat[places].astype(np.int64), sizes)


def entropy(levels: np.ndarray, sizes: int) -> float:
    """Bytes of `levels` (segments, sizes): of an ideal code that knows each segment's share of zeros, and of signs."""
    share = np.clip((levels != 0).mean(axis=1), 1e-9, 1 - 1e-9)
    bits = -sizes * (share * np.log2(share) + (1 - share) * np.log2(1 - share)).sum() + np.count_nonzero(levels)
    return float(bits / 8)


@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 2**40)), st.data())
def test_fields_come_back(values: np.ndarray, data: st.DataObject) -> None:
    widths = np.array([int(v).bit_length() + data.draw(st.integers(0, 3)) for v in values], dtype=np.int64)
    bits = fields.write([(values, widths)])
    assert len(bits) == widths.sum()
    np.testing.assert_array_equal(fields.read(bits, widths), values)


@pytest.mark.parametrize("octaves", [1, 3, 4, 18, 31])
def test_tables_share_out_all_slots(octaves: int) -> None:
    tables = gaps.tables(octaves)
    assert (tables.widths.sum(axis=1) == TOTAL).all() and tables.widths.min() >= 1
    largest = np.array([2**octaves - 1])
    assert gaps.split(largest)[0] < tables.starts.shape[1]


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1)), min_size=1, max_size=6), st.integers(0, 2**32))
def test_gaps_come_back(segments: list[tuple[int, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    flags = [rng.random(size) < share for size, share in segments]
    counts, sizes = np.array([f.sum() for f in flags]), np.array([len(f) for f in flags])
    chosen = np.flatnonzero(np.concatenate(flags))
    buckets, within = gaps.split(gaps.gaps(chosen, counts, sizes))
    assert (within >> gaps.widths(buckets) == 0).all()
    places, fits = gaps.places(gaps.join(buckets, within), counts, sizes)
    assert fits
    np.testing.assert_array_equal(places, chosen)


@given(
    levels=hnp.arrays(np.int32, (3, 4, 2, 3), elements=st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-2, 2)),
    seed=st.none() | st.integers(0, 99),
)
@settings(deadline=None)
def test_levels_come_back(levels: np.ndarray, seed: int | None) -> None:
    mask = None if seed is None else np.random.default_rng(seed).random(levels.shape) < seed / 99
    order, sizes = segments(levels.shape, mask)
    flat = levels.reshape(-1)[slice(None) if order is None else order]
    places, values = decode(b"xy" + coded(flat, sizes), 2, sizes)
    again = np.zeros(levels.size, dtype=np.int64)
    again[places] = values
    np.testing.assert_array_equal(again, flat)


@pytest.mark.parametrize("step", [2, 10, 30])
def test_bytes_are_within_a_few_percent_of_the_entropy(step: int) -> None:
    levels = np.clip(systematic(heavy_tailed(0, (32, 128, 8, 8)) / step, np.random.default_rng(0)), -1, 1)
    assert len(coded(levels.reshape(-1), np.full(32, 8192))) < 1.04 * entropy(levels.reshape(32, -1), 8192)


def test_rounding_is_to_a_neighbour_and_sums_stay_within_one() -> None:
    scaled = heavy_tailed(1)
    levels = systematic(scaled, np.random.default_rng(0))
    assert (np.abs(levels - scaled) < 1).all() and levels.dtype == np.int32
    drift = np.cumsum((levels - scaled).reshape(4, 16, 8, 8).sum(axis=3), axis=2)
    assert np.abs(drift).max() < 1.0001, "after every row"
    alone = np.floor(scaled + np.random.default_rng(0).random(scaled.shape))
    assert 0.9 < np.count_nonzero(levels) / np.count_nonzero(alone) < 1.1


def test_errors_cancel_where_neighbours_count_alike() -> None:
    """The gradient of a weight is a sum over positions of errors times an input that is smooth."""
    rng = np.random.default_rng(2)
    scaled = heavy_tailed(2, (32, 8, 8, 8)) / np.float32(8)
    ramp = np.linspace(1, 2, 8)[:, None] + np.linspace(0, 1, 8)
    ours = [((systematic(scaled, rng) - scaled) * ramp).sum(axis=(2, 3)).var() for _ in range(10)]
    alone = [((np.floor(scaled + rng.random(scaled.shape)) - scaled) * ramp).sum(axis=(2, 3)).var() for _ in range(10)]
    assert np.mean(ours) < 0.2 * np.mean(alone)


def test_the_step_is_of_the_batch_and_coarser_where_the_mask_is_false() -> None:
    gradient = heavy_tailed(3)
    mask = np.random.default_rng(3).random(SHAPE) < 0.6
    unit = 3 * np.sqrt(np.mean(np.square(gradient.astype(np.float64))))
    payload = Sparse(step=3, coarse=4).pack(gradient, mask, np.random.default_rng(0))
    assert struct.unpack("<f", payload[:4])[0] == pytest.approx(unit, rel=1e-6)
    levels = Sparse(step=3, coarse=4).unpack(payload, SHAPE, mask) / np.float32(unit)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert set(np.unique(np.rint(levels[~mask]) % 4)) == {0} and len(np.unique(np.rint(levels[mask]) % 4)) > 1
    assert len(payload) < len(Sparse(step=3).pack(gradient, None, np.random.default_rng(0)))


def test_a_gradient_of_zeros_is_its_step_alone() -> None:
    zeros = np.zeros(SHAPE, np.float32)
    assert Sparse().pack(zeros, None, np.random.default_rng(0)) == bytes(4)
    with pytest.raises(PayloadError, match="expected none") as caught:
        Sparse().unpack(bytes(5), SHAPE, None)
    assert caught.value.offset == 4


@pytest.mark.parametrize("unit", [float("nan"), float("inf"), -1.0])
def test_a_step_that_is_none_is_refused(unit: float) -> None:
    payload = Sparse().pack(heavy_tailed(0), None, np.random.default_rng(0))
    with pytest.raises(PayloadError, match="step 0 is") as caught:
        Sparse().unpack(struct.pack("<f", unit) + payload[4:], SHAPE, None)
    assert caught.value.offset == 0


@given(data=st.data())
@settings(deadline=None)
def test_a_payload_with_bytes_changed_is_a_gradient_or_a_payload_error(data: st.DataObject) -> None:
    gradient = heavy_tailed(5, (2, 8, 4, 4))
    payload = bytearray(Sparse(step=2).pack(gradient, gradient > 0.1, np.random.default_rng(0)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)) | st.just(len(payload)))]
    try:
        arrives = Sparse(step=2).unpack(bytes(payload), gradient.shape, gradient > 0.1)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)
    else:
        assert np.isfinite(arrives).all() and arrives.shape == gradient.shape


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("of", ["rms", "largest"])
def test_a_diverged_gradient_is_refused_before_it_is_sent(value: float, of: str) -> None:
    gradient = np.ones((2, 2, 1, 1), np.float32)
    gradient[1, 1] = value
    with pytest.raises(UsageError, match="diverged"):
        Sparse(of=of).pack(gradient, None, np.random.default_rng(0))


@pytest.mark.parametrize("config", [{"step": 0}, {"step": 1001}, {"step": "x"}, {"coarse": 0}, {"of": "mean"}])
def test_configurations_that_make_no_sense_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="sparse takes"):
        Sparse(**config)  # type: ignore[arg-type]

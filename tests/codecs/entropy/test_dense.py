"""Dense levels: the spreads, the bytes beside the entropy, and what is refused."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.codecs.entropy import spreads
from edgekit.codecs.entropy.dense import decode, encode
from edgekit.codecs.entropy.slots import TOTAL
from edgekit.errors import PayloadError

pytestmark = pytest.mark.usefixtures("coder")
SIZES = np.array([32, 300, 1, 2000])
DRAWS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "laplace": lambda rng, size: rng.laplace(size=size) / np.sqrt(2),
    "student": lambda rng, size: rng.standard_t(5, size=size) / np.sqrt(5 / 3),
}


def entropy(levels: np.ndarray) -> float:
    """Bytes by the order-0 entropy of `levels`, whose table would have to be sent too."""
    counts = np.unique(levels, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(levels))).sum()) / 8


def drawn(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.rint(8 * rng.laplace(size=size)).astype(np.int64) for size in SIZES])


PAYLOAD = encode(drawn(), SIZES)


def test_spreads_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for octaves in (3, 7, 31):
        digest.update(spreads.slots(octaves).astype("<i4").tobytes())
    assert digest.hexdigest() == "5903f47788e5f2e2bb482337c5de35aefcae6aeef271eb7ec66ceebe093ac167"


@pytest.mark.parametrize("octaves", [3, 4, 10, 31])
def test_spreads_share_out_all_slots(octaves: int) -> None:
    slots = spreads.slots(octaves)
    assert slots.shape == (256, spreads.buckets(octaves) + 1)
    assert (slots[:, 0] == 0).all() and (slots[:, -1] == TOTAL).all() and np.diff(slots).min() >= 1


@pytest.mark.parametrize("kind", [140, 141, 142, 143, 100, 101])
def test_spreads_follow_their_formula(kind: int) -> None:
    power, scale = (2, 1.5, 1, 0.75)[kind % 4], 2 ** (kind // 4 / 4 - 8)
    fair = 2 ** -((np.arange(1, 1 << 13) / scale) ** power)
    fair = np.concatenate(([1], 2 * fair)) / (1 + 2 * fair.sum())
    widths = np.diff(spreads.slots(10)[kind])
    np.testing.assert_allclose(widths[:8] / TOTAL, fair[:8], atol=0.004)
    np.testing.assert_allclose(widths[8] / TOTAL, fair[8:10].sum(), atol=0.004)


@given(
    segments=st.lists(
        hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-9, 9)),
        max_size=5,
    )
)
@settings(deadline=None)
def test_levels_come_back(segments: list[np.ndarray]) -> None:
    levels = np.concatenate([np.zeros(0, np.int64), *segments])
    sizes = np.array([len(segment) for segment in segments], dtype=np.int64)
    again = decode(b"xy" + encode(levels, sizes), 2, sizes)
    assert again.dtype == np.int64
    np.testing.assert_array_equal(again, levels)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("deviation", [1, 2, 4, 8])
def test_bytes_are_within_two_percent_of_the_entropy(draw: str, deviation: int) -> None:
    levels = np.rint(deviation * DRAWS[draw](np.random.default_rng(0), 30_000)).astype(np.int64)
    assert len(encode(levels, np.array([len(levels)]))) < 1.02 * entropy(levels)


def test_short_segments_cost_little() -> None:
    """Of 64 segments of 32 levels, spread differently: no more than in one, but for their numbers."""
    rng = np.random.default_rng(0)
    levels = [np.rint(8 * rng.normal(size=32)).astype(np.int64) for _ in range(64)]
    apart, together = (encode(np.concatenate(levels), np.array(sizes)) for sizes in ([32] * 64, [32 * 64]))
    assert len(apart) < len(together) + 64
    mixed = np.concatenate([part * scale for part, scale in zip(levels, [1, 20] * 32, strict=True)])
    assert len(encode(mixed, np.array([32] * 64))) < 0.9 * len(encode(mixed, np.array([32 * 64])))


def test_one_large_level_among_zeros() -> None:
    levels = np.zeros(30_000, dtype=np.int64)
    levels[777] = -100_000
    payload = encode(levels, np.array([30_000]))
    assert len(payload) < 80
    np.testing.assert_array_equal(decode(payload, 0, np.array([30_000])), levels)


def test_no_levels_are_no_bytes() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert encode(nothing, nothing) == encode(nothing, np.array([0, 0])) == b""
    assert len(decode(b"xy", 2, nothing)) == 0
    with pytest.raises(PayloadError, match="1 B of 0 levels") as caught:
        decode(b"xyz", 2, nothing)
    assert caught.value.offset == 2


def test_fields_that_are_none_are_refused() -> None:
    payload = PAYLOAD
    for octaves in (0, 2, 32, 255):
        with pytest.raises(PayloadError, match="expected 3 to 31") as caught:
            decode(b"x" + bytes([octaves]) + payload[1:], 1, SIZES)
        assert caught.value.offset == 1
    (size,) = struct.unpack("<I", payload[1:5])
    for wrong in (1 << 31, len(payload) - 8):
        with pytest.raises(PayloadError, match="B of bits, expected at most"):
            decode(payload[:1] + struct.pack("<I", wrong) + payload[5:], 0, SIZES)
    end = 5 + len(SIZES) + size
    with pytest.raises(PayloadError, match="bits and zeros"):
        decode(payload[:1] + struct.pack("<I", size + 1) + payload[5:end] + b"\0" + payload[end:], 0, SIZES)


@given(payload=st.binary(max_size=600))
@settings(max_examples=150, deadline=None)
def test_any_bytes(payload: bytes) -> None:
    try:
        assert len(decode(payload, 0, SIZES)) == SIZES.sum()
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_payload(data: st.DataObject) -> None:
    payload = bytearray(PAYLOAD)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(payload), bytes(payload[: data.draw(st.integers(0, len(payload)))])):
        try:
            assert len(decode(damaged, 0, SIZES)) == SIZES.sum()
        except PayloadError as error:
            assert 0 <= error.offset <= len(damaged)

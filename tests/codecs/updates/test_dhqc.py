"""dhqc: the threshold, the 8 levels, where in an interval values arrive, bytes, and what is refused."""

import struct

import numpy as np
import pytest

from edgekit.codecs.updates import coding
from edgekit.codecs.updates.dhqc import DHQC
from edgekit.errors import PayloadError, UsageError
from tests.codecs.updates.drawn import SHAPES, TOTAL, drawn, f32, row

RNG = np.random.default_rng(0)


def sent(codec: DHQC, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What is given and what arrives, (m,) each."""
    update = drawn(seed)
    return row(update), row(codec.unpack(codec.pack(update, RNG), SHAPES))


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5])
def test_the_threshold_keeps_k_and_the_intervals_are_8_of_one_width(keep: float) -> None:
    given, arrives = sent(DHQC(keep))
    count = round(keep * TOTAL)
    assert np.count_nonzero(arrives) == count
    threshold, largest = np.sort(np.abs(given))[[-count, -1]]
    assert ((np.abs(given) >= threshold) == (arrives != 0)).all()
    edges = np.linspace(threshold, largest, 9)
    levels = np.unique(np.abs(arrives[arrives != 0]))
    assert len(levels) <= 8
    assert np.abs(levels[:, None] - edges[:8]).min(axis=1).max() < 1e-7 * largest
    for value, came in zip(given, arrives, strict=True):
        if came:
            below = edges[:8][edges[:8] <= abs(value) * (1 + 1e-9)].max()
            assert came == pytest.approx(np.sign(value) * below, rel=1e-6)


def test_all_8_levels_of_both_signs_are_used() -> None:
    values = np.arange(-800, 801).astype(np.float32)
    codec = DHQC(keep=0.5)
    arrives = codec.unpack(codec.pack({"a": values}, RNG), {"a": values.shape})["a"]
    assert len(np.unique(arrives)) == 17
    assert (arrives == -arrives[::-1]).all()


def test_middles_and_means_are_nearer() -> None:
    """In exponential tails the mean of an interval is below its middle, and above its edge."""
    off = {}
    for location in ("lower", "middle", "mean"):
        given, arrives = sent(DHQC(0.3, location), 3)
        kept = arrives != 0
        off[location] = np.linalg.norm(given[kept] - arrives[kept])
        if location == "mean":
            width = np.ptp(np.abs(given[kept])) / 8
            for level in np.unique(np.abs(arrives[kept])):
                inside = np.abs(given[np.abs(arrives) == level])
                assert level == pytest.approx(inside.mean(), abs=width / 500)
    assert off["mean"] < off["middle"] < off["lower"]


def test_one_value_alone_and_equal_ones_arrive_exactly() -> None:
    for keep, values in ((0.34, [0, -3.7, 1]), (1, [2.5, -2.5, 2.5])):
        for location in ("lower", "middle", "mean"):
            codec, update = DHQC(keep, location), {"a": f32(values)}
            arrives = codec.unpack(codec.pack(update, RNG), {"a": (3,)})["a"]
            np.testing.assert_array_equal(arrives[arrives != 0], update["a"][np.abs(update["a"]) > 2])


def test_bits_by_formula_are_the_papers_ratio() -> None:
    """1,369,738 weights, as its ALL-CNN has: 800 times less but for the head, which makes 799 of it."""
    shapes: dict[str, tuple[int, ...]] = {"a": (1369738,)}
    assert 32 * 1369738 / DHQC().formula_bits(shapes) == pytest.approx(799.1, abs=0.05)


def test_measured_is_the_entropy_of_places_and_levels() -> None:
    values = np.random.default_rng(1).laplace(size=(300, 2000)).astype(np.float32)
    codec = DHQC()
    payload = codec.pack({"a": values}, RNG)
    arrives = codec.unpack(payload, {"a": values.shape})["a"]
    _, counts = np.unique(arrives, return_counts=True)
    entropy = -(counts * np.log2(counts / values.size)).sum()
    assert 8 * len(payload) == pytest.approx(entropy, rel=0.03)


def test_what_is_none_is_refused() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (2,)}
    levels = coding.encode(np.array([8, -1]), shapes)
    head = struct.pack("<2f", 1, 9)
    np.testing.assert_array_equal(DHQC().unpack(head + levels, shapes)["a"], [8, -1])
    with pytest.raises(PayloadError, match="interval 9, expected 1 to 8"):
        DHQC().unpack(head + coding.encode(np.array([9, 1]), shapes), shapes)
    with pytest.raises(PayloadError, match=r"magnitudes from 9\.0 to 1\.0"):
        DHQC().unpack(struct.pack("<2f", 9, 1) + levels, shapes)
    with pytest.raises(PayloadError, match="magnitude 1 is"):
        DHQC().unpack(struct.pack("<2f", 9, float("nan")) + levels, shapes)
    with pytest.raises(PayloadError, match="expected 16 and levels"):
        DHQC(location="mean").unpack(head + bytes(7), shapes)
    with pytest.raises(UsageError, match="dhqc takes a location of lower, middle, mean, got 'upper'"):
        DHQC(location="upper")

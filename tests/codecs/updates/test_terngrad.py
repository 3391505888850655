"""terngrad: values, that it is unbiased, its variance, its bytes, and what is refused."""

import numpy as np
import pytest

from edgekit.codecs.base import UpdateSender
from edgekit.codecs.updates.terngrad import TernGrad
from edgekit.errors import PayloadError
from tests.codecs.updates.drawn import SHAPES, drawn, f32

CODEC = TernGrad()


def test_every_value_arrives_as_0_or_with_its_sign_and_the_largest_magnitude_of_its_array() -> None:
    update = drawn(0)
    arrives = CODEC.unpack(CODEC.pack(update, np.random.default_rng(0)), SHAPES)
    for name, array in arrives.items():
        largest = np.abs(update[name]).max()
        assert set(np.unique(array)) <= {-largest, 0, largest}
        assert (array * update[name] >= 0).all()
        assert np.abs(array).max() == largest, "the largest value itself always arrives"


def test_it_is_unbiased() -> None:
    """The mean of many draws is within 6 of its standard errors of each value, and 2 of them for most."""
    update = drawn(1)
    rng, times = np.random.default_rng(2), 2000
    total = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for _ in range(times):
        for name, array in CODEC.unpack(CODEC.pack(update, rng), SHAPES).items():
            total[name] += array
    for name, array in update.items():
        given = array.astype(np.float64)
        # A draw is u with probability |x| / u: its variance is |x| * (u - |x|).
        error = np.sqrt(np.abs(given) * (np.abs(given).max() - np.abs(given)) / times) + 1e-12
        off = (total[name] / times - given) / error
        assert np.abs(off).max() < 6
        assert (np.abs(off) < 2).mean() > 0.9
        assert abs(off.mean()) < 5 / np.sqrt(off.size)


def test_nothing_is_kept_for_the_next_update() -> None:
    assert type(CODEC.sender()) is UpdateSender


def test_bits_by_formula_and_measured() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (1000, 100)}
    assert CODEC.formula_bits(shapes) == 2 * 100000 + 32
    update = {"a": np.random.default_rng(0).normal(size=shapes["a"]).astype(np.float32)}
    measured = 8 * len(CODEC.pack(update, np.random.default_rng(0)))
    share = np.abs(update["a"]).mean() / np.abs(update["a"]).max()
    entropy = 1e5 * (-share * np.log2(share / 2) - (1 - share) * np.log2(1 - share))
    assert measured < 1.03 * entropy + 200 < CODEC.formula_bits(shapes)


def test_other_levels_and_scales_are_refused() -> None:
    payload = CODEC.pack({"a": f32([1, -2])}, np.random.default_rng(0))
    with pytest.raises(PayloadError, match="scale 0 is"):
        CODEC.unpack(b"\0\0\xc0\x7f" + payload[4:], {"a": (2,)})
    with pytest.raises(PayloadError, match="expected 2 scales"):
        CODEC.unpack(payload[:7], {"a": (2,), "b": ()})

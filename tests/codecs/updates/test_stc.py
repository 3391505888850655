"""stc: how many are kept, which, as what; Golomb's bits."""

import numpy as np
import pytest

from edgekit.codecs.updates import coding
from edgekit.codecs.updates.stc import STC, golomb_bits
from edgekit.errors import PayloadError
from tests.codecs.updates.drawn import SHAPES, TOTAL, drawn, f32, row

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("keep", "count"), [(0.04, round(0.04 * TOTAL)), (0.5, TOTAL // 2), (1, TOTAL)])
def test_exactly_k_of_largest_magnitude_are_kept_as_their_mean(keep: float, count: int) -> None:
    update = drawn(0)
    arrives = row(STC(keep).unpack(STC(keep).pack(update, RNG), SHAPES))
    given = row(update)
    assert np.count_nonzero(arrives) == count
    kept = np.argsort(-np.abs(given), kind="stable")[:count]
    assert set(np.flatnonzero(arrives)) == set(kept)
    mean = np.abs(given[kept]).sum() / count
    np.testing.assert_allclose(arrives[kept], np.sign(given[kept]) * mean, rtol=1e-6)


def test_of_equal_values_exactly_k_are_kept() -> None:
    update = {"a": np.full((5, 20), -1, np.float32)}
    arrives = STC(0.07).unpack(STC(0.07).pack(update, RNG), {"a": (5, 20)})["a"]
    assert np.flatnonzero(arrives).tolist() == list(range(7)) and (arrives.reshape(-1)[:7] == -1).all()


def test_bits_by_formula() -> None:
    """Golomb's code is near the entropy of the gaps, and so is what is measured."""
    for share in (1, 0.9, 0.5, 0.04, 0.0025, 1e-6):
        entropy = -np.log2(share) - (1 - share) * np.log2(1 - share) / share if share < 1 else 0
        assert entropy <= golomb_bits(share) <= entropy + 1.01
    assert STC(0.01).formula_bits({"a": (10000,)}) == pytest.approx(100 * (1 + golomb_bits(0.01)) + 32)
    values = np.random.default_rng(1).laplace(size=(300, 1000)).astype(np.float32)
    payload = STC(0.01).pack({"a": values}, RNG)
    assert 8 * len(payload) == pytest.approx(STC(0.01).formula_bits({"a": (300, 1000)}), rel=0.03)


def test_what_is_no_sign_is_refused() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (3,)}
    head = f32(2).tobytes()
    ones = coding.encode(np.array([1, 0, -1]), shapes)
    np.testing.assert_array_equal(STC().unpack(head + ones, shapes)["a"], [2, 0, -2])
    with pytest.raises(PayloadError, match="beyond -1, 0 and 1"):
        STC().unpack(head + coding.encode(np.array([1, 0, -2]), shapes), shapes)
    with pytest.raises(PayloadError, match="mean 0 is"):
        STC().unpack(np.float32(-2).tobytes() + ones, shapes)
    with pytest.raises(PayloadError, match="expected a mean"):
        STC().unpack(head[:3], shapes)

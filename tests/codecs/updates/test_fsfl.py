"""fsfl: the thresholds against a direct reading of Eqs. 2 and 3, steps, sparsity, feedback, bytes, what is refused."""

from typing import Any

import numpy as np
import pytest

from edgekit.codecs.base import UpdateSender
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.codecs.updates.fsfl import FSFL
from edgekit.errors import UsageError
from tests.codecs.updates.drawn import SHAPES, drawn, f32

RNG = np.random.default_rng(0)


def sparsified(weight: np.ndarray, step: float, delta: float, gamma: float) -> np.ndarray:
    """Eqs. 2 and 3, filter by filter and value by value."""
    values = [float(value) for value in weight.flat]
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    unstructured = max(abs(mean - delta * deviation), abs(mean + delta * deviation))
    if unstructured < step / 2:
        unstructured = step / 2
    filters = [[float(value) for value in each.flat] for each in weight]
    structured = gamma / len(filters) * sum(abs(sum(each) / len(each)) for each in filters)
    kept = []
    for each in filters:
        dropped = abs(sum(each) / len(each)) < structured
        kept += [0.0 if dropped or abs(value) < unstructured else value for value in each]
    return np.array(kept).reshape(weight.shape)


@pytest.mark.parametrize(("delta", "gamma"), [(1, 0.9), (2.5, 0), (0, 1.5), (0, 0)])
@pytest.mark.parametrize("size", [1e-4, 1e-2])
def test_weights_are_what_passes_the_thresholds_in_multiples_of_the_step(
    delta: float, gamma: float, size: float
) -> None:
    update, codec = drawn(0, size), FSFL(delta=delta, gamma=gamma)
    update["head.weight"] += np.float32(size / 2)
    arrives = codec.unpack(codec.pack(update, RNG), SHAPES)
    for name in ("0.weight", "3.weight", "head.weight"):
        sparse = sparsified(update[name], codec.step, delta, gamma)
        np.testing.assert_allclose(arrives[name], np.rint(sparse / 4.88e-4) * 4.88e-4, rtol=1e-6)
        assert np.count_nonzero(arrives[name]) == np.count_nonzero(sparse), "no threshold is below half a step"
    for name in ("1.bias", "1.weight", "scale"):
        np.testing.assert_allclose(arrives[name], np.rint(update[name] / 2.38e-6) * 2.38e-6, rtol=1e-6)


def test_whole_rows_are_dropped() -> None:
    weight = f32([[1, 1, -1], [0.2, 0.1, 0], [-1, -1, -1]])
    codec = FSFL(step=0.01, delta=0, gamma=0.5)
    arrives = codec.unpack(codec.pack({"a": weight}, RNG), {"a": (3, 3)})["a"]
    assert not arrives[1].any() and arrives[0].any() and (arrives[2] != 0).all()


def test_a_fixed_sparsity_keeps_that_share_of_each_weight() -> None:
    update = drawn(3)
    codec = FSFL(sparsity=0.96, gamma=0)
    arrives = codec.unpack(codec.pack(update, RNG), SHAPES)
    for name in ("0.weight", "3.weight", "head.weight"):
        count = round(0.04 * update[name].size)
        kept = np.argsort(-np.abs(update[name].reshape(-1)), kind="stable")[:count]
        assert set(np.flatnonzero(arrives[name])) == set(kept)
    rows = FSFL(sparsity=0.96, gamma=1.5)
    arrives = rows.unpack(rows.pack(update, RNG), SHAPES)
    weight = update["3.weight"]
    means = np.array([abs(each.mean(dtype=np.float64)) for each in weight])
    assert np.count_nonzero(arrives["3.weight"]) == round(0.04 * weight.size)
    assert not arrives["3.weight"][means < 1.5 * means.mean()].any()


def test_feedback_is_a_choice() -> None:
    """Eq. 5: what is too small to be sent adds up."""
    assert type(FSFL().sender()) is UpdateSender
    sender = FSFL(delta=0, gamma=0, feedback=True).sender(learns=False)
    assert isinstance(sender, ErrorFeedback)
    update = {"a": np.full((2, 2), 1e-4, np.float32)}
    came = [float(sender.send(update, RNG)[1]["a"][0, 0]) for _ in range(10)]
    assert came[:2] == [0, 0] and sum(came) == pytest.approx(1e-3, abs=2.44e-4)


def test_what_is_beyond_the_largest_level_is_cut_off() -> None:
    update = {"a": f32([3e38, -3e38]), "b": np.full((2, 1), -3e38, np.float32)}
    arrives = FSFL().unpack(FSFL().pack(update, RNG), {"a": (2,), "b": (2, 1)})
    np.testing.assert_allclose(arrives["a"], np.array([1, -1]) * (2**31 - 1) * 2.38e-6, rtol=1e-6)
    np.testing.assert_allclose(arrives["b"], -(2**31 - 1) * 4.88e-4, rtol=1e-6)


def test_bits_by_formula() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (100, 10), "b": (7,)}
    sparse = FSFL(sparsity=0.75)
    assert sparse.formula_bits(shapes) == pytest.approx(1000 * (0.25 + 0.8113) + 7 * 32, rel=1e-4)
    assert FSFL(delta=1).formula_bits({"a": (10**6, 1)}) == pytest.approx(10**6 * (0.3173 + 0.9014), rel=1e-3)
    # Two rows of four: one of zeros, and one of the levels 0, 0, 1 and 5, of 1.5 bits each.
    of = {"a": f32([[0] * 4, [0, 0, 4.88e-4, 5 * 4.88e-4]])}
    assert sparse.formula_bits_of(of) == pytest.approx(2 + 4 * 1.5)
    assert sparse.formula_bits_of({"b": np.zeros((0, 3), np.float32), "c": f32(0)}) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"step": 0}, "step of 1e-12"), ({"fine": True}, "fine step of 1e-12"), ({"delta": -1}, "delta of 0"),
        ({"gamma": float("nan")}, "gamma of 0"), ({"sparsity": 1}, "sparsity from 0"),
        ({"feedback": 1}, "true or false"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FSFL(**config)

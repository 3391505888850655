"""Error feedback: what it is for, its state, and what is refused."""

import numpy as np
import pytest

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import update_codec
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.errors import Diverged, ShapeError

RNG = np.random.default_rng(0)


def row(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


UPDATE: Arrays = {"weight": row([3, -0.01, 0.02]), "scale": np.array(0.5, dtype=np.float32)}


def coarse() -> ErrorFeedback:
    return ErrorFeedback(update_codec("quantised", {"step": 1}))


def test_what_is_too_small_to_send_arrives_in_time() -> None:
    feedback = coarse()
    alone = feedback.codec.unpack(feedback.codec.pack(UPDATE, RNG), {"weight": (3,), "scale": ()})
    assert not alone["weight"][1:].any()
    arrived = np.sum([feedback.send(UPDATE, RNG)[1]["weight"] for _ in range(200)], axis=0)
    np.testing.assert_allclose(arrived / 200, UPDATE["weight"], atol=0.02)
    assert arrived[1] < 0 < arrived[2]


def test_without_loss_there_is_no_residual() -> None:
    feedback = ErrorFeedback(update_codec("fedavg", {}))
    for _ in range(2):
        payload, arrives = feedback.send(UPDATE, RNG)
        assert payload == feedback.codec.pack(UPDATE, RNG)
        assert all(np.array_equal(arrives[name], UPDATE[name]) for name in UPDATE)
        assert not any(array.any() for array in feedback.state.values())


def test_it_goes_on_from_its_state() -> None:
    first, second = coarse(), coarse()
    assert first.state == {}
    second.restore(first.state)
    first.send(UPDATE, RNG)
    state = first.state
    second.restore(state)
    state["weight"][:] = 7
    for _ in range(5):
        payload, arrives = first.send(UPDATE, RNG)
        again, arrives_again = second.send(UPDATE, RNG)
        assert payload == again
        assert all(np.array_equal(arrives[name], arrives_again[name]) for name in UPDATE)
    assert {name: (array.dtype.name, array.shape) for name, array in first.state.items()} == {
        "weight": ("float32", (3,)), "scale": ("float32", ()),
    }  # fmt: skip


def test_the_update_stays_as_it_is() -> None:
    feedback = coarse()
    before = {name: array.copy() for name, array in UPDATE.items()}
    _, arrives = feedback.send(UPDATE, RNG)
    arrives["weight"][:] = 9
    feedback.send(UPDATE, RNG)
    assert all(np.array_equal(UPDATE[name], array) for name, array in before.items())


@pytest.mark.parametrize(
    "update",
    [
        {"weight": UPDATE["weight"]},
        {**UPDATE, "new": UPDATE["scale"]},
        {**UPDATE, "scale": row([0.5])},
        {**UPDATE, "weight": UPDATE["weight"].astype(np.float64)},
    ],
)
def test_other_weights_than_before_are_refused(update: Arrays) -> None:
    feedback = coarse()
    feedback.send(UPDATE, RNG)
    before = feedback.state
    with pytest.raises(ShapeError, match="expected"):
        feedback.send(update, RNG)
    assert all(np.array_equal(feedback.state[name], array) for name, array in before.items())


def test_what_diverged_is_refused_and_leaves_the_residual() -> None:
    feedback = coarse()
    feedback.send(UPDATE, RNG)
    before = feedback.state
    for value in (np.nan, np.inf):
        with pytest.raises(Diverged, match="'weight'"):
            feedback.send({**UPDATE, "weight": row([0, value, 0])}, RNG)
    assert all(np.array_equal(feedback.state[name], array) for name, array in before.items())
    largest = np.finfo(np.float32).max
    feedback.restore({**before, "weight": np.full(3, largest)})
    with pytest.raises(Diverged, match="'weight'"):
        feedback.send({**UPDATE, "weight": np.full(3, largest)}, RNG)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected float32"):
        coarse().restore({"weight": np.zeros(3)})
    with pytest.raises(Diverged, match="'weight'"):
        coarse().restore({"weight": row([np.nan])})

"""Weights moved by an update: which of them rounds average, and that both sides come to the same bits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.moves import LEAST_VARIANCE, moved, shared

STATE = {
    "conv.weight": np.array([[1, -2], [3, 4]], np.float32),
    "norm.running_mean": np.array([0.5, -0.5], np.float32),
    "norm.running_var": np.array([1, 4], np.float32),
    "norm.num_batches_tracked": np.array(7),
}
LEARNED = ["conv.weight", "norm.running_mean", "norm.running_var"]


def test_what_learns_is_shared_and_copied_in_the_order_of_the_state() -> None:
    found = shared(STATE, reversed(LEARNED))
    assert list(found) == LEARNED
    found["conv.weight"][:] = 0
    assert STATE["conv.weight"][0, 0] == 1
    assert list(shared(STATE, LEARNED, iter(["norm.running_mean", "norm.running_var"]))) == ["conv.weight"]
    assert list(shared(STATE, ["norm.running_mean"])) == ["norm.running_mean"]


def test_an_update_is_added_and_the_state_stays() -> None:
    state = shared(STATE, LEARNED)
    update = {name: np.full_like(array, 0.25) for name, array in state.items()}
    new = moved(state, update, ["norm.running_var", "of another network"])
    for name, array in new.items():
        np.testing.assert_array_equal(array, STATE[name] + np.float32(0.25))
        np.testing.assert_array_equal(state[name], STATE[name])


def test_a_variance_stays_positive_and_a_mean_may_be_negative() -> None:
    state = shared(STATE, LEARNED)
    update = {name: np.full_like(array, -3) for name, array in state.items()}
    new = moved(state, update, ["norm.running_var"])
    np.testing.assert_array_equal(new["norm.running_var"], np.array([LEAST_VARIANCE * 1, 1], np.float32))
    np.testing.assert_array_equal(new["norm.running_mean"], np.array([-2.5, -3.5], np.float32))


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    arrays.arrays(np.float32, 3, elements=st.floats(2.0**-100, 2.0**100, width=32)),
    arrays.arrays(np.float32, 3, elements=finite),
)
def test_no_update_makes_a_variance_zero_or_negative(variance: np.ndarray, update: np.ndarray) -> None:
    new = moved({"var": variance}, {"var": update}, ["var"])["var"]
    assert new.dtype == np.float32 and (new > 0).all()
    assert (new >= np.minimum(variance + update, variance * np.float32(LEAST_VARIANCE))).all()

"""Averages of updates: weighted by images, and not carried away by one device."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.codecs.base import Arrays
from edgekit.errors import UnknownName
from edgekit.server.averaging import AVERAGES, LONGEST, check_average, clipped, length, mean, trimmed


def update(*values: float) -> Arrays:
    """Two arrays of these values."""
    return {"a": np.array(values, np.float32), "b": np.array([values[:1]], np.float32)}


def test_the_mean_counts_images() -> None:
    found = mean([update(1, 2), update(5, 10)], [30, 10])
    np.testing.assert_allclose(found["a"], [2, 4])
    np.testing.assert_allclose(found["b"], [[2]])
    assert all(array.dtype == np.float32 for array in found.values())


@pytest.mark.parametrize("average", AVERAGES.values(), ids=list(AVERAGES))
@pytest.mark.parametrize("devices", [1, 2, 3, 7])
def test_the_average_of_equal_updates_is_that_update(average, devices: int) -> None:
    found = average([update(1.5, -3)] * devices, [16] * devices)
    np.testing.assert_allclose(found["a"], [1.5, -3], rtol=1e-6)
    assert found["a"].dtype == np.float32


@pytest.mark.parametrize("average", AVERAGES.values(), ids=list(AVERAGES))
def test_what_is_averaged_stays_as_it_was(average) -> None:
    given = [update(1, 2), update(3, 4), update(100, 5)]
    average(given, [1, 2, 3])
    assert [each["a"].tolist() for each in given] == [[1, 2], [3, 4], [100, 5]]


def test_a_long_update_is_made_shorter_and_keeps_its_direction() -> None:
    usual, loud = update(1, 0), update(0, 1000)
    found = clipped([usual, usual, loud], [10, 10, 10])
    # The length of all values: those of "a", and the one in "b".
    longest = LONGEST * length(usual)
    np.testing.assert_allclose(found["a"], [2 / 3, longest / 3], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [[2 / 3]], rtol=1e-6)


def test_an_update_of_many_images_is_no_outlier() -> None:
    small, large = update(1, 1), update(10, 10)
    given, images = [small, small, large], [10, 10, 100]
    np.testing.assert_array_equal(clipped(given, images)["a"], mean(given, images)["a"])
    assert (clipped(given, [10, 10, 10])["a"] < mean(given, [10, 10, 10])["a"]).all()


def test_of_two_nobody_says_which_is_wrong() -> None:
    given = [update(1, 0), update(1000, 0)]
    for average in (clipped, trimmed):
        np.testing.assert_allclose(average(given, [1, 1])["a"], [500.5, 0])


def test_updates_that_are_all_zero_are_averaged() -> None:
    np.testing.assert_array_equal(clipped([update(0, 0)] * 3, [1, 1, 1])["a"], [0, 0])


def test_trimming_leaves_out_the_ends_of_every_value() -> None:
    given = [update(*row) for row in ((1, 50), (2, -1e30), (3, 30), (4, 40), (1e30, 20))]
    np.testing.assert_allclose(trimmed(given, [1, 1, 1, 1, 1])["a"], [3, 30])
    # A fifth at each end, rounded down, and at least one.
    ten = [update(value) for value in (*range(8), -1e30, 1e30)]
    np.testing.assert_allclose(trimmed(ten, [1] * 10)["a"], [3.5])


@given(st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(1, 1000)), min_size=3, max_size=8), st.data())
def test_one_device_cannot_carry_the_others_away(told: list[tuple[float, int]], data: st.DataObject) -> None:
    """Whatever one of the devices says, the average stays within what the others say, or near it."""
    honest = [update(value) for value, _ in told]
    wild = update(data.draw(st.sampled_from([1e30, -1e30, 1e10])))
    for name, average in (("clipped", clipped), ("trimmed", trimmed)):
        (found,) = average([*honest, wild], [10] * (len(told) + 1))["a"]
        bound = 2 * LONGEST * max(abs(value) for value, _ in told) + 1e-3
        assert abs(found) <= bound, name


def test_an_unknown_average_lists_the_known_ones() -> None:
    check_average("clipped")
    with pytest.raises(UnknownName, match=r"did you mean trimmed.*there are: clipped, mean, trimmed"):
        check_average("trimed")


def test_length_is_that_of_all_values() -> None:
    assert length({"a": np.array([3], np.float32), "b": np.array([[4]], np.float32)}) == 5
    assert length({"a": np.array([1e30], np.float32)}) == pytest.approx(1e30), "squares that no float32 holds"

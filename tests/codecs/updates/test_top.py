"""The largest of a row: exactly so many, ties, zeros."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.codecs.updates.top import count_of, keep_of, largest
from edgekit.errors import UsageError


@given(
    values=st.lists(st.sampled_from([-2.5, -1, -0.0, 0, 1e-40, 1, 2.5, 3e38]), max_size=20), count=st.integers(1, 22)
)
def test_they_are_those_that_a_stable_sort_puts_first(values: list[float], count: int) -> None:
    ordered = sorted(range(len(values)), key=lambda i: -abs(values[i]))
    expected = sorted(i for i in ordered[:count] if values[i])
    assert largest(np.array(values, dtype=np.float64), count).tolist() == expected


@pytest.mark.parametrize(
    ("size", "keep", "count"), [(1000, 0.01, 10), (100, 0.07, 7), (3, 0.001, 1), (0, 0.5, 0), (7, 1, 7), (1, 1e-6, 1)]
)
def test_a_share_of_a_size(size: int, keep: float, count: int) -> None:
    assert count_of(size, keep_of("stc", keep)) == count


@pytest.mark.parametrize("keep", [0, 1e-7, 1.5, -0.1, "x", float("nan"), True])
def test_shares_that_make_no_sense_are_refused(keep: float) -> None:
    with pytest.raises(UsageError, match=r"stc takes a share to keep from 0\.000001 to 1, got"):
        keep_of("stc", keep)

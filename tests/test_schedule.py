import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UnknownName
from edgekit.schedule import SCHEDULES, check_schedule, learning_rate


def test_constant_is_the_base_rate() -> None:
    assert {learning_rate("constant", 0.3, before, before + 0.1) for before in (0.0, 0.5, 0.9)} == {0.3}


def test_cosine_rises_over_a_twentieth_and_falls_to_zero() -> None:
    rates = [learning_rate("cosine", 1.0, step / 100, (step + 1) / 100) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0 and rates[100] == 0.0
    assert all(late < early for early, late in itertools.pairwise(rates[5:]))
    assert rates[5 + 95 // 2] == pytest.approx(0.5, abs=0.02)


@given(st.sampled_from(sorted(SCHEDULES)), st.floats(0, 1), st.floats(0, 1))
def test_every_step_has_a_rate_between_zero_and_the_base(schedule: str, one: float, other: float) -> None:
    assert 0.0 <= learning_rate(schedule, 0.1, min(one, other), max(one, other)) <= 0.1


def test_an_unknown_schedule_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean cosine"):
        learning_rate("cosin", 0.1, 0.0, 1.0)
    check_schedule("cosine")

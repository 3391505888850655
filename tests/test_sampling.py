"""Sampling of devices: how many rest, that each gets its turn, and what the option says."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.sampling import DECAY, LEAST, Sampling, sampling

NAMES = [f"device-{number}" for number in range(20)]


def test_by_default_nobody_rests() -> None:
    for number in range(5):
        assert Sampling().resting(NAMES, number, 0) == set()


@pytest.mark.parametrize(("share", "active"), [(1.0, 20), (0.5, 10), (0.26, 6), (0.01, 1)])
def test_a_share_takes_part(share: float, active: int) -> None:
    for number in range(5):
        resting = Sampling(share).resting(NAMES, number, 0)
        assert resting <= set(NAMES) and len(resting) == 20 - active


@pytest.mark.parametrize(("share", "devices", "active"), [(0.14, 50, 7), (0.07, 100, 7), (0.28, 25, 7), (0.141, 50, 8)])
def test_a_share_that_is_a_whole_number_of_devices_takes_no_more(share: float, devices: int, active: int) -> None:
    assert Sampling(share).active(devices, 0) == active


def test_fewer_take_part_every_round() -> None:
    active = [20 - len(Sampling(decay=0.1).resting(NAMES, number, 0)) for number in range(40)]
    assert active[0] == 20 and active[5] == math.ceil(20 * math.exp(-0.5)) and active[-1] == LEAST
    assert all(late <= early for early, late in itertools.pairwise(active))


@given(st.integers(1, 300), st.integers(0, 60), st.floats(1e-3, 2))
def test_dynamic_sampling_is_that_of_the_paper(devices: int, number: int, decay: float) -> None:
    names = [f"device-{each:03d}" for each in range(devices)]
    chosen = Sampling(decay=decay).chosen(names, number, 1)
    assert len(chosen) == min(devices, max(5, math.ceil(devices * math.exp(-decay * number))))
    assert chosen == sorted(set(chosen)), "without replacement, in the order of the names"
    assert set(chosen) == set(names) - Sampling(decay=decay).resting(names, number, 1)


def test_few_devices_all_take_part_in_spite_of_decay() -> None:
    assert Sampling(decay=5.0).resting(NAMES[:3], 9, 0) == set()


def test_rounds_and_seeds_draw_anew_and_the_same_draws_again() -> None:
    drawn = [Sampling(0.5).resting(NAMES, number, seed) for number, seed in ((0, 0), (1, 0), (0, 1))]
    assert drawn[0] == Sampling(0.5).resting(NAMES, 0, 0)
    assert len({frozenset(each) for each in drawn}) == 3


def test_each_device_gets_its_turn() -> None:
    turns = [sum(name not in Sampling(0.5).resting(NAMES, number, 3) for number in range(200)) for name in NAMES]
    assert min(turns) > 70 and max(turns) < 130


@given(st.floats(1e-3, 1), st.floats(0, 3), st.integers(1, 30), st.integers(0, 100), st.integers(0, 9))
def test_somebody_always_takes_part(share: float, decay: float, devices: int, number: int, seed: int) -> None:
    names = [f"device-{each}" for each in range(devices)]
    resting = Sampling(share, decay).resting(names, number, seed)
    assert resting < set(names)


def test_what_the_option_says() -> None:
    assert sampling("all") == Sampling() and sampling("static:0.25") == Sampling(0.25)
    assert sampling("dynamic:0.5") == Sampling(1.0, 0.5) and sampling("static:1") == Sampling()
    assert sampling("dynamic") == Sampling(decay=DECAY)


@pytest.mark.parametrize(
    "text", ["", "none", "static", "static:", "static:0", "static:1.5", "static:nan", "static:half", "dynamic:-1",
             "dynamic:inf", "dynamic:0", "all:1"],
)  # fmt: skip
def test_anything_else_says_what_there_is(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--sampling {text}: expected all, static:SHARE")):
        sampling(text)

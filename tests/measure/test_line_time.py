"""Computed seconds against figures worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.link.link import parse_link, split_links
from edgekit.measure.line_time import check_computable, computed

EPOCH = {"steps": 40, "bytes_up": 1_000_000, "bytes_down": 250_000, "seconds": {"train": 7.0}}


def test_bytes_each_way_and_round_trips_are_added() -> None:
    # 8 Mbit at 2 Mbit/s, 2 Mbit at 10, 40 round trips of 30 ms.
    assert computed(EPOCH, parse_link("2mbit/10mbit+30ms")) == pytest.approx(7 + 4 + 0.2 + 1.2)


def test_without_a_line_it_is_what_the_training_took() -> None:
    assert computed(EPOCH, None) == 7.0


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(0, 10**6))
def test_a_faster_line_takes_no_longer(up: int, down: int, steps: int) -> None:
    epoch = {**EPOCH, "bytes_up": up, "bytes_down": down, "steps": steps}
    seconds = [
        computed(epoch, link) for link in split_links("0.1mbit+50ms,1mbit+50ms,1mbit+5ms,1gbit,loopback").values()
    ]
    assert seconds == sorted(seconds, reverse=True) and seconds[-1] == 7.0


@pytest.mark.parametrize("link", ["1mbit+jitter=5ms", "1mbit+20ms+stall=300ms@10s"])
def test_what_does_not_follow_is_refused(link: str) -> None:
    check_computable(split_links("loopback,1mbit+20ms"))
    with pytest.raises(UsageError, match="--line measured"):
        check_computable(split_links(f"1mbit,{link}"))

import numpy as np
import pytest

from edgekit.server.observe.usage import EVERY, Usage


def codes(*groups: list[int]) -> np.ndarray:
    """(1,G,h,1) int32"""
    return np.array(groups, dtype=np.int32)[None, :, :, None]


def test_nothing_is_known_before_codes_came() -> None:
    assert Usage().told() is None


def test_even_use_has_all_entries_and_one_entry_none_but_itself() -> None:
    usage = Usage()
    usage.see(codes([0, 1, 2, 3], [2, 2, 2, 2]), 4)
    told = usage.told()
    assert told is not None
    # All four of the first group, one of the second.
    assert told["used"] == pytest.approx((1 + 0.25) / 2)
    assert told["perplexity"] == pytest.approx((4 + 1) / 2)


def test_one_batch_in_so_many_is_looked_at_and_old_ones_fade() -> None:
    usage = Usage()
    usage.see(codes([0, 1]), 2)
    for _ in range(EVERY - 1):
        usage.see(codes([0, 0]), 2)
    assert usage.told() == {"used": 1.0, "perplexity": pytest.approx(2.0)}
    for _ in range(60 * EVERY):
        usage.see(codes([0, 0]), 2)
    faded = usage.told()
    assert faded is not None and faded["used"] == 0.5 and faded["perplexity"] < 1.1

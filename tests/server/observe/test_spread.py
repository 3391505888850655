import pytest

from edgekit.server.observe.spread import ENDS, Spread


def test_buckets_count_what_was_no_longer_than_their_end() -> None:
    spread = Spread()
    for seconds in (0.0, ENDS[0], 0.0011, 0.3, 1000.0):
        spread.add(seconds)
    told = spread.told()
    assert told["count"] == 5 and told["sum"] == pytest.approx(1000.3021)
    assert told["buckets"]["0.001"] == 2 and told["buckets"]["0.0025"] == 3
    assert told["buckets"]["0.25"] == 3 and told["buckets"]["0.5"] == 4
    assert told["buckets"]["60.0"] == 4 and told["buckets"]["+Inf"] == 5
    assert list(told["buckets"].values()) == sorted(told["buckets"].values())

"""When bytes leave and arrive, by hand and without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.link.shaper import Shaper

#: 1000 bytes a second.
RATE = 8000.0
SENDS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5000)), min_size=1, max_size=30)


def moments(sends: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """(time, bytes) from (pause, bytes)."""
    now, timed = 0.0, []
    for pause, n in sends:
        now += pause
        timed.append((now, n))
    return timed


def test_rate_holds_over_any_chunks() -> None:
    shaper = Shaper(RATE, 0.0)
    for i in range(100):
        assert shaper.send(37, 0.0) == pytest.approx(((i + 1) * 0.037, (i + 1) * 0.037))
    assert shaper.left_s == pytest.approx(3.7)


def test_delay_is_added_once_whatever_the_length_of_the_queue() -> None:
    shaper = Shaper(RATE, 0.25)
    assert [shaper.send(500, 0.0) for _ in range(3)] == [(0.5, 0.75), (1.0, 1.25), (1.5, 1.75)]


def test_idle_line_saves_nothing_up() -> None:
    """A burst after a pause takes as long as one at the start."""
    shaper = Shaper(RATE, 0.1)
    shaper.send(1000, 0.0)
    assert [shaper.send(1000, 100.0)[1] for _ in range(3)] == pytest.approx([101.1, 102.1, 103.1])


def test_end_of_a_stream_takes_its_place_in_the_queue() -> None:
    shaper = Shaper(RATE, 0.1)
    assert shaper.send(1000, 0.0)[1] == shaper.send(0, 0.5)[1] == 1.1


def test_jitter_is_even_and_keeps_the_order() -> None:
    shaper = Shaper(RATE, 0.2, jitter_s=0.1, seed=3)
    alone = [shaper.send(1, float(i))[1] - i - 0.001 for i in range(2000)]
    assert 0.2 <= min(alone) < 0.21 and 0.29 < max(alone) <= 0.3
    assert sum(alone) / len(alone) == pytest.approx(0.25, abs=0.005)
    again = Shaper(RATE, 0.2, jitter_s=0.1, seed=3)
    assert [again.send(1, float(i))[1] - i - 0.001 for i in range(2000)] == alone
    close = [shaper.send(1, 3000.0)[1] for _ in range(2000)]
    assert close == sorted(close)


def test_nothing_moves_in_a_stall() -> None:
    """1 s of every 5: from 4 to 5, from 9 to 10."""
    shaper = Shaper(RATE, 0.5, stall_s=1.0, stall_every_s=5.0)
    assert shaper.send(1000, 0.0) == (1.0, 1.5)
    # Leaves as it begins; on its way while it lasts.
    assert shaper.send(900, 3.0) == pytest.approx((3.9, 5.4))
    # Half of it leaves before, half after.
    assert shaper.send(200, 3.9) == pytest.approx((5.1, 5.6))
    # Sent in the next stall.
    assert shaper.send(1000, 9.5) == pytest.approx((11.0, 11.5))
    # Through several.
    assert shaper.send(9000, 20.0) == pytest.approx((31.0, 31.5))


def test_stalls_take_their_share_of_the_rate() -> None:
    shaper = Shaper(RATE, 0.0, stall_s=0.3, stall_every_s=2.0)
    left = [shaper.send(10, 0.0)[0] for _ in range(17005)]
    assert left[-1] == pytest.approx(170 / (1 - 0.3 / 2.0) + 0.05)


@given(SENDS, st.floats(0, 2), st.floats(0, 2), st.sampled_from([(0.0, 0.0), (0.5, 1.0), (0.3, 7.0)]))
def test_physics(sends: list[tuple[float, int]], delay: float, jitter: float, stall: tuple[float, float]) -> None:
    """Whatever is sent when: nothing is early, nothing is overtaken, and at most the rate passes."""
    shaper = Shaper(RATE, delay, jitter, *stall)
    before, busy_from, sent = (0.0, 0.0), 0.0, 0
    for now, n in moments(sends):
        if now > before[0]:
            busy_from, sent = now, 0
        sent += n
        left, arrives = shaper.send(n, now)
        assert left >= before[0] and arrives >= before[1]
        assert left >= busy_from + 8 * sent / RATE - 1e-6
        assert arrives >= left + delay - 1e-6
        if not stall[0]:
            assert left == pytest.approx(busy_from + 8 * sent / RATE)
            assert arrives <= max(left + delay + jitter, before[1]) + 1e-6
        else:
            phase = arrives % stall[1]
            assert phase <= stall[1] - stall[0] + 1e-6 or phase > stall[1] - 1e-6
        before = left, arrives

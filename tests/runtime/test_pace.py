import pytest

from edgekit.runtime.pace import SLOWEST, TIMEOUT_S, Pace


def test_before_anything_was_carried_the_line_counts_as_the_slowest() -> None:
    pace = Pace()
    assert pace.allowed_s == TIMEOUT_S
    pace.sent(100_000, 0.0)
    assert pace.under_way == 100_000 and pace.allowed_s == TIMEOUT_S + 100_000 / SLOWEST


def test_the_rate_is_that_of_exchanges() -> None:
    pace = Pace()
    for step in range(5):
        pace.sent(500_000, 100.0 * step)
        pace.replied(500_000, 100.0 * step + 80.0)
    assert pace.rate == pytest.approx(12_500)
    pace.sent(500_000, 500.0)
    # What is under way, and a reply as large as those before: 80 s at this rate.
    assert pace.allowed_s == pytest.approx(TIMEOUT_S + 80.0)


def test_of_several_under_way_each_counts_from_the_reply_before() -> None:
    pace = Pace()
    for _ in range(4):
        pace.sent(10_000, 0.0)
    for number in range(4):
        pace.replied(0, number + 1.0)
    assert pace.rate == pytest.approx(10_000) and pace.under_way == 0


def test_a_line_that_becomes_slower_gets_more_time() -> None:
    pace = Pace()
    pace.sent(1_000_000, 0.0)
    pace.replied(0, 1.0)
    fast = pace.rate
    for step in range(20):
        pace.sent(100_000, 10.0 * step + 1.0)
        pace.replied(0, 10.0 * step + 11.0)
    assert fast == pytest.approx(1e6) and 10_000 < pace.rate < 12_000


def test_waiting_for_other_devices_is_no_slow_line() -> None:
    pace = Pace()
    pace.sent(100_000, 0.0)
    pace.replied(100_000, 1.0)
    pace.sent(1_000, 1.0)
    pace.replied(1_000, 3_000.0, counts=False)
    assert pace.rate == pytest.approx(200_000)


def test_no_line_is_slower_than_the_slowest_and_no_clock_too_coarse() -> None:
    pace = Pace()
    pace.sent(1, 0.0)
    pace.replied(1, 10_000.0)
    assert pace.rate == SLOWEST
    pace.sent(1, 10_000.0)
    pace.replied(1, 10_000.0)
    assert pace.allowed_s >= TIMEOUT_S


def test_an_error_that_answers_nothing() -> None:
    pace = Pace()
    pace.replied(100, 1.0)
    assert pace.under_way == 0 and pace.rate == SLOWEST

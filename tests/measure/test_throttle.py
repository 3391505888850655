"""The throttle over real processes: shares that are kept, and no process left stopped."""

import subprocess
import sys
import time

import pytest

from edgekit.errors import UsageError
from edgekit.measure.cpu_time import cpu_seconds
from edgekit.measure.throttle import Throttle


def test_a_process_gets_its_share_and_no_more(process: "subprocess.Popen[str]") -> None:
    with Throttle(0.2) as throttle:
        throttle.hold(process)
        # The first looks may find it in debt already.
        time.sleep(0.2)
        start, before = time.monotonic(), cpu_seconds(process.pid)
        time.sleep(1.5)
        share = (cpu_seconds(process.pid) - before) / (time.monotonic() - start)
    # Other load can only take from it; it never gets more, but for one tick.
    assert 0.05 < share < 0.22


def test_afterwards_it_runs_as_before(process: "subprocess.Popen[str]") -> None:
    with Throttle(0.02) as throttle:
        throttle.hold(process)
        time.sleep(0.1)
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            assert file.read().rpartition(")")[2].split()[0] == "T"
    before = cpu_seconds(process.pid)
    until = time.monotonic() + 30
    while cpu_seconds(process.pid) < before + 0.05:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stopped_process_can_be_ended(process: "subprocess.Popen[str]") -> None:
    """It takes the signal when it goes on, which it does once it has earned what it owes."""
    with Throttle(0.05) as throttle:
        throttle.hold(process)
        time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=30) < 0


def test_one_that_has_ended_is_let_go() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"], text=True)
    ended.wait()
    with Throttle(0.5) as throttle:
        throttle.hold(ended)
        time.sleep(0.05)
    with pytest.raises(OSError, match="Invalid argument"):
        cpu_seconds(ended.pid)


def test_one_that_is_released_runs_as_before(process: "subprocess.Popen[str]") -> None:
    with Throttle(0.01) as throttle:
        throttle.hold(process)
        time.sleep(0.1)
        throttle.release(process)
        before = cpu_seconds(process.pid)
        until = time.monotonic() + 30
        # At a hundredth of a core this takes longer.
        while cpu_seconds(process.pid) < before + 0.5:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(UsageError, match=r"expected 0\.01 to 1"):
        Throttle(share)

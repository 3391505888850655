"""What a record keeps of the machine: this one, as Linux tells it."""

import json
import os
import time

import pytest

from edgekit import machine


def test_describes_this_machine() -> None:
    told = machine.describe()
    assert told["cores"] == os.cpu_count() and told["memory_bytes"] > 2**28
    assert told["versions"]["numpy"] and told["python"].startswith("3.")
    assert set(told["clocks"]) == {"governor", "mhz", "locked"}
    assert json.loads(json.dumps(told)) == told


def test_usage_grows_with_work() -> None:
    before, busy = machine.usage(os.getpid()), machine.busy_s()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = machine.usage(os.getpid())
    # The kernel counts in hundredths of a second.
    assert after.cpu_s - before.cpu_s >= 0.07
    assert machine.busy_s() - busy >= 0.05
    assert before.peak_bytes is not None and after.peak_bytes is not None
    assert after.peak_bytes >= before.peak_bytes > 2**20


def test_a_process_that_is_gone() -> None:
    with pytest.raises(OSError):
        machine.usage(2**22 + 1)

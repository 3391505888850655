"""Processor seconds of a real process, between any two moments."""

import subprocess
import time

import pytest

from edgekit.measure.cpu_time import MACHINE, CpuTime, cpu_seconds


def test_a_span_is_cut_out(process: "subprocess.Popen[str]") -> None:
    with CpuTime() as cpu:
        cpu.add("it", process.pid)
        time.sleep(0.3)
        start, before = time.monotonic(), cpu_seconds(process.pid)
        time.sleep(0.5)
        end, after = time.monotonic(), cpu_seconds(process.pid)
        time.sleep(0.2)
        process.kill()
        process.wait()
        time.sleep(0.2)
    assert cpu.spent("it", start, end) == pytest.approx(after - before, abs=0.1)
    assert cpu.spent("it", start, start) == 0.0
    # After its end it spends nothing more.
    assert cpu.spent("it", end + 0.4, end + 9.0) == 0.0
    assert cpu.spent(MACHINE, start, end) >= 0.0

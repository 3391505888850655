"""CpuTime: processor seconds of processes while they run, read many times a second, so that any span can be cut out."""

import threading
import time
from collections.abc import Callable

import numpy as np

from edgekit import machine

#: Seconds between two readings.
EVERY_S = 0.05
#: Name of the readings of all processors together.
MACHINE = "machine"


def cpu_seconds(pid: int) -> float:
    """Processor seconds of all threads of process `pid` so far, to the nanosecond; OSError when it is gone.

    Linux has a clock for every process, whose number follows from the process's (clock_getcpuclockid(3)). The counters
    in /proc move in hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


class CpuTime:
    """Reads the clocks of the processes that were added, in a thread of its own, until the context ends."""

    def __init__(self) -> None:
        self._clocks: dict[str, Callable[[], float]] = {MACHINE: machine.busy_s}
        #: Name -> (monotonic time, processor seconds) of each reading.
        self._readings: dict[str, list[tuple[float, float]]] = {MACHINE: [(time.monotonic(), machine.busy_s())]}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, name: str, pid: int) -> None:
        """Begins to read process `pid`, which runs, as `name`."""
        with self._lock:
            self._clocks[name] = lambda: cpu_seconds(pid)
            self._readings[name] = [(time.monotonic(), cpu_seconds(pid))]

    def spent(self, name: str, start: float, end: float) -> float:
        """Processor seconds of `name` between two monotonic times, interpolated between the readings around them."""
        with self._lock:
            times, values = zip(*self._readings[name], strict=True)
        first, last = np.interp((start, end), times, values)
        return float(last - first)

    def __enter__(self) -> "CpuTime":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                for name, clock in list(self._clocks.items()):
                    try:
                        self._readings[name].append((time.monotonic(), clock()))
                    except OSError:
                        del self._clocks[name]  # it has ended: its last reading stands
            if self._done.wait(EVERY_S):
                return

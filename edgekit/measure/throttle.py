"""Throttle: holds processes to a share of one core, so that they are as slow as boards that are slower than a core.

A process earns SHARE processor seconds a second and may spend no more than it earned. One that has is stopped (SIGSTOP)
until it has earned what it owes, and then goes on (SIGCONT). So does a control group with ``cpu.max``, in the kernel;
this is done from outside, and needs no rights. What a process does not spend it cannot save, but for a moment: a slow
core is not fast after a rest.
"""

import signal
import subprocess
import threading
import time
from dataclasses import dataclass

from edgekit.errors import UsageError
from edgekit.measure.cpu_time import cpu_seconds

#: Seconds between two looks at a process: one that runs may owe so much processor time.
TICK_S = 0.005
#: What it may save: its earnings of this many seconds.
SAVED_S = 0.02


@dataclass
class _Held:
    process: "subprocess.Popen[str]"
    #: Processor seconds earned and not spent, below 0 when it owes some.
    credit: float
    #: When its clock was read last, and what it showed.
    at: float
    used: float
    stopped: bool = False


class Throttle:
    """Holds each process to `share` of a core, from `hold` to `release` or the end of the context. UsageError."""

    def __init__(self, share: float) -> None:
        if not 0.01 <= share <= 1:
            raise UsageError(f"a share of {share:g} of a core: expected 0.01 to 1")
        self.share = share
        self._held: list[_Held] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def hold(self, process: "subprocess.Popen[str]") -> None:
        """From now on `process`, a child of this one, gets no more than its share."""
        with self._lock:
            try:
                self._held.append(_Held(process, 0.0, time.monotonic(), cpu_seconds(process.pid)))
            except OSError:
                return  # it has ended already

    def release(self, process: "subprocess.Popen[str]") -> None:
        """From now on `process` runs as before."""
        with self._lock:
            for held in self._held:
                if held.process is process:
                    process.send_signal(signal.SIGCONT)
            self._held = [held for held in self._held if held.process is not process]

    def __enter__(self) -> "Throttle":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for held in self._held:
            held.process.send_signal(signal.SIGCONT)

    def _run(self) -> None:
        while not self._done.wait(TICK_S):
            with self._lock:
                self._held = [held for held in self._held if self._settle(held)]

    def _settle(self, held: _Held) -> bool:
        """Stops or continues `held` by what it owes; whether it still runs."""
        if held.process.poll() is not None:
            return False
        try:
            used, now = cpu_seconds(held.process.pid), time.monotonic()
        except OSError:
            return False
        earned = self.share * (now - held.at)
        held.credit = min(held.credit + earned - (used - held.used), self.share * SAVED_S)
        held.at, held.used = now, used
        if (held.credit < 0) != held.stopped:
            held.stopped = not held.stopped
            # A `Popen` sends nothing to a process that has ended, whose number may be another's by now.
            held.process.send_signal(signal.SIGSTOP if held.stopped else signal.SIGCONT)
        return True

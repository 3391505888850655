"""The energy that a board used while something ran, from its power monitor, sampled in a thread.

Jetsons have INA3221 monitors. The kernel shows them below ``/sys/bus/i2c/drivers``: up to JetPack 4 as
``ina3221x/*/iio:device*`` with ``rail_name_N`` and ``in_powerN_input`` in mW, later as ``ina3221/*/hwmon/hwmon*``
with ``inN_label``, ``inN_input`` in mV and ``currN_input`` in mA (kernel documentation, hwmon/ina3221). The rail into
the module feeds all others, so only that one is counted; where no rail has its name, the energy is unknown. No board
was at hand: paths and names are from the kernel's documentation and from energymon's JetsonPowerRails.md.
"""

import glob
import os
import threading
import time
from typing import Callable, List, Optional

#: Names of the rail into the module, which differ by board.
TOTAL = ("VDD_IN", "POM_5V_IN", "5V_IN")
#: Seconds between samples.
EVERY_S = 0.05


class Energy:
    """Measures the joules between `start` and `stop`; None when no rail of `TOTAL` could be read all the time."""

    def __init__(self, root: str = "/sys/bus/i2c/drivers") -> None:
        self._watts = _total_rail(root)
        self._joules: Optional[float] = None
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def start(self) -> None:
        """Starts sampling."""
        if self._watts is not None:
            self._thread = threading.Thread(target=self._sample, args=(self._watts,), daemon=True)
            self._thread.start()

    def stop(self) -> Optional[float]:
        """The joules since `start`, or None; ends sampling."""
        self._ended.set()
        if self._thread is None:
            return None
        self._thread.join()
        return self._joules

    def _sample(self, watts: Callable[[], float]) -> None:
        joules, ended = 0.0, False
        try:
            then, before = time.perf_counter(), watts()
            while not ended:
                ended = self._ended.wait(EVERY_S)
                now, after = time.perf_counter(), watts()
                joules += (now - then) * (before + after) / 2
                then, before = now, after
        except (OSError, ValueError):
            return  # a partial sum would be a wrong figure
        self._joules = joules


def _total_rail(root: str) -> Optional[Callable[[], float]]:
    """A function that reads the watts of the rail into the module; None when there is no such rail."""
    for label in _found(root, "ina3221x/*/iio:device*/rail_name_*"):
        if _read(label) in TOTAL:
            power = os.path.join(os.path.dirname(label), "in_power{}_input".format(label[-1]))
            return lambda: int(_read(power)) / 1e3
    for label in _found(root, "ina3221*/*/hwmon/hwmon*/in*_label"):
        if _read(label) in TOTAL:
            volts = label[: -len("_label")] + "_input"
            amperes = os.path.join(os.path.dirname(label), "curr{}_input".format(os.path.basename(label)[2]))
            return lambda: int(_read(volts)) / 1e3 * int(_read(amperes)) / 1e3
    return None


def _found(root: str, pattern: str) -> List[str]:
    return sorted(glob.glob(os.path.join(root, pattern)))


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().strip()

"""The machine of a measurement: versions, processor, memory, clocks, temperatures, load; all read from Linux.

What a machine does not say is None, never a guess or zero.
"""

import glob
import importlib
import os
import platform
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Optional

#: Packages whose versions are recorded if they are loaded already.
PACKAGES = ("edgekit", "numpy", "onnxruntime", "tensorrt", "torch", "grpc")


class Usage(NamedTuple):
    """A process's processor seconds so far, and its peak of memory since `forget_peak`, in bytes, where known."""

    cpu_s: float
    peak_bytes: Optional[int]


class Zone(NamedTuple):
    """A thermal zone: its temperature, and the lowest one at which the kernel slows the board down, where known."""

    name: str
    celsius: float
    throttles_c: Optional[float]


def describe() -> Dict[str, Any]:
    """This machine as a record keeps it: versions, processor, memory, clocks, power mode, temperatures."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": memory().get("MemTotal"),
        "versions": _versions(),
        "clocks": clocks(),
        "power_mode": power_mode(),
        "temperatures_c": {zone.name: zone.celsius for zone in zones()},
    }


def usage(pid: int) -> Usage:
    """The `Usage` of process `pid`; OSError when it is gone."""
    with open("/proc/{}/stat".format(pid), encoding="ascii", errors="replace") as file:
        # The name, in brackets, may hold spaces.
        fields = file.read().rpartition(")")[2].split()
    peak = _field("/proc/{}/status".format(pid), "VmHWM")
    return Usage((int(fields[11]) + int(fields[12])) / _ticks(), int(peak.split()[0]) * 1024 if peak else None)


def forget_peak(pid: int) -> None:
    """Resets the peak of memory of process `pid`; OSError when that is not allowed."""
    with open("/proc/{}/clear_refs".format(pid), "w", encoding="ascii") as file:
        file.write("5")


def busy_s() -> float:
    """The busy seconds of all processors since this machine started, added up."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _ticks()


def _ticks() -> float:
    return float(os.sysconf("SC_CLK_TCK"))


def version(name: str) -> Optional[str]:
    """The version of package `name`, which is imported; None where there is no such package."""
    try:
        return str(getattr(importlib.import_module(name), "__version__", "unknown"))
    except ImportError:
        return None


def _versions() -> Dict[str, str]:
    return {name: str(version(name)) for name in PACKAGES if name in sys.modules}


def memory(root: str = os.sep) -> Dict[str, int]:
    """Bytes by their names in /proc/meminfo, such as MemTotal, MemAvailable, SwapFree; {} when it cannot be read."""
    pairs = [line.partition(":") for line in (read(os.path.join(root, "proc/meminfo")) or "").splitlines()]
    return {name: int(value.split()[0]) * 1024 for name, _, value in pairs if value.endswith(" kB")}


def clocks(root: str = os.sep) -> Dict[str, Any]:
    """Governor, present MHz of every processor, and whether clocks are locked (lowest allowed is highest allowed)."""
    folders = sorted(glob.glob(os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq")))

    def values(name: str) -> List[str]:
        return [text for text in (read(os.path.join(folder, name)) for folder in folders) if text]

    least, most, present = (values("scaling_" + name) for name in ("min_freq", "max_freq", "cur_freq"))
    governors = sorted(set(values("scaling_governor")))
    return {
        "governor": ", ".join(governors) or None,
        "mhz": [int(khz) / 1000.0 for khz in present] or None,
        "locked": least == most if least else None,
    }


def power_mode() -> Optional[str]:
    """A Jetson's power mode, as `nvpmodel -q` says it; None on other boards."""
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, universal_newlines=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = [line.partition(":")[2].strip() for line in done.stdout.splitlines() if "Power Mode" in line]
    return said[0] if said else None


def zones(root: str = os.sep) -> List[Zone]:
    """The thermal zones that can be read, but PMIC-Die: on a Jetson that one always says 100 degrees."""
    found = []
    for folder in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*"))):
        text = read(os.path.join(folder, "temp"))
        name = read(os.path.join(folder, "type")) or os.path.basename(folder)
        if text and name != "PMIC-Die":
            found.append(Zone(name, int(text) / 1000.0, _throttles(folder)))
    return found


def _throttles(zone: str) -> Optional[float]:
    """The temperature of a zone's lowest passive trip point; trip points of 0 and below are not in use."""
    kinds = sorted(glob.glob(os.path.join(zone, "trip_point_*_type")))
    texts = [read(kind[: -len("type")] + "temp") for kind in kinds if read(kind) == "passive"]
    degrees = [int(text) / 1000.0 for text in texts if text]
    return min([each for each in degrees if each > 0], default=None)


def _field(path: str, name: str) -> Optional[str]:
    """The value of the first line "name: value" of `path`."""
    for line in (read(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def read(path: str) -> Optional[str]:
    """The text of the file at `path`, stripped; None when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None

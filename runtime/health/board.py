"""The board: its system image, power mode and clocks, temperatures, and the rails that energy is read from."""

import os
import re
import shutil
import time
from typing import Dict, List, Optional

from edgekit import machine
from edgekit.runtime.energy import Energy
from edgekit.runtime.health import versions as ranges
from edgekit.runtime.health.commands import told_by
from edgekit.runtime.health.finding import Finding, compared

#: Versions of L4T, NVIDIA's Linux for Jetsons, and the JetPack that each belongs to.
JETPACKS = (
    ("32.6.1", "4.6"), ("32.7.1 to 32.7.6", "4.6.1 to 4.6.6"), ("35.1", "5.0.2"), ("35.2.1 to 35.6.4", "5.1 to 5.1.6"),
    ("36.3", "6.0"), ("36.4.0 to 36.5.0", "6.1 to 6.2.2"), ("38.2 to 38.4", "7.0 to 7.1"), ("39.x", "7.2"),
)  # fmt: skip
#: A temperature is a warning from this many degrees Celsius below the one at which the kernel slows the board down.
NEAR_C = 10.0
_RELEASE = re.compile(r"R(\d{1,4}) \(release\), REVISION: (\d{1,4}(?:\.\d{1,4})?)")
_GPU = re.compile(r"^GPU MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)", re.MULTILINE)
_EMC = re.compile(r"^EMC .*FreqOverride=(\d)", re.MULTILINE)


def board(versions: Dict[str, str], root: str) -> List[Finding]:
    """The board's findings; those of Jetsons only when the machine or the profile is one."""
    release = machine.read(os.path.join(root, "etc/nv_tegra_release"))
    found = [_processor_clocks(root), _temperatures(root), _rails(root)]
    if release is None and "l4t" not in versions:
        return found
    return [_l4t(release, versions), _power_mode(), _board_clocks(), *found]


def _l4t(release: Optional[str], versions: Dict[str, str]) -> Finding:
    if release is None:
        text = "/etc/nv_tegra_release is not there: no Jetson, or a container without it"
        return Finding("L4T", "unknown", text, None, "start on the board itself, or mount that file")
    match = _RELEASE.search(release)
    if match is None:
        return Finding("L4T", "unknown", "/etc/nv_tegra_release says '{}'".format(release.partition("\n")[0][:80]))
    version = "{}.{}".format(*match.groups())
    jetpack = [name for l4t, name in JETPACKS if ranges.compare(version, ranges.parse(l4t)) == 0]
    what = "{}, JetPack {}".format(version, jetpack[0]) if jetpack else version
    if "l4t" not in versions:
        return Finding("L4T", "ok", what, version)
    advice = "export with the profile of this JetPack (`edgekit devices`), or install the one that the profile names"
    found = compared("L4T", version, versions["l4t"], "warning", advice)
    return found._replace(text=found.text.replace(version, what, 1))


def _power_mode() -> Finding:
    if shutil.which("nvpmodel") is None:
        return Finding("power mode", "unknown", "nvpmodel is not on PATH", None, "start on the board itself")
    mode = machine.power_mode()
    if mode is None:
        advice = "try `sudo nvpmodel -q`"
        return Finding("power mode", "unknown", "`nvpmodel -q` does not say it", None, advice)
    if "MAXN" in mode:
        return Finding("power mode", "ok", mode, mode)
    advice = (
        "`sudo nvpmodel -p --verbose` lists the modes, `sudo nvpmodel -m N` takes one: MAXN, or where a board has none "
        "the one of most watts and cores"
    )
    return Finding("power mode", "warning", "{}, which is not MAXN".format(mode), mode, advice)


def _board_clocks() -> Finding:
    """The clocks of GPU and memory, which jetson_clocks shows to root alone."""
    output, reason = told_by(["jetson_clocks", "--show"])
    gpu, memory = _GPU.search(output), _EMC.search(output)
    if gpu is None:
        text = reason or "`jetson_clocks --show` says nothing of a GPU"
        return Finding("board clocks", "unknown", text, None, "start on the board, with sudo, to see them")
    low, high, now = (int(hertz) / 1e6 for hertz in gpu.groups())
    locked = low == high and (memory is None or memory.group(1) == "1")
    text = "GPU at {:.0f} of {:.0f} MHz, {}".format(now, high, "locked" if locked else "moving with the load")
    value = {"gpu_mhz": now, "gpu_max_mhz": high, "locked": locked}
    advice = "" if locked else "`sudo jetson_clocks` locks them at their highest, for measuring"
    return Finding("board clocks", "ok" if locked else "warning", text, value, advice)


def _processor_clocks(root: str) -> Finding:
    clocks = machine.clocks(root)
    if clocks["governor"] is None:
        return Finding("clocks", "unknown", "no cpufreq in /sys: the kernel or a container keeps it to itself")
    mhz = "{:.0f} MHz, ".format(max(clocks["mhz"])) if clocks["mhz"] else ""
    if clocks["locked"] or clocks["governor"] == "performance":
        text = "{}governor {}{}".format(mhz, clocks["governor"], ", locked" if clocks["locked"] else "")
        return Finding("clocks", "ok", text, clocks)
    advice = "for measuring, `sudo jetson_clocks` on a Jetson, else `sudo cpupower frequency-set -g performance`"
    text = "{}moving with the load, governor {}".format(mhz, clocks["governor"])
    return Finding("clocks", "warning", text, clocks, advice)


def _temperatures(root: str) -> Finding:
    zones = machine.zones(root)
    if not zones:
        return Finding("temperature", "unknown", "no thermal zone can be read in /sys/class/thermal")
    value = {zone.name: zone.celsius for zone in zones}
    hottest = max(zones, key=lambda zone: zone.celsius)
    text = "{} at {:.0f} C is the hottest".format(hottest.name, hottest.celsius)
    near = [zone for zone in zones if zone.throttles_c is not None and zone.celsius >= zone.throttles_c - NEAR_C]
    if near:
        text = ", ".join("{} at {:.0f} C, slowed at {:.0f} C".format(*zone) for zone in near)
        return Finding("temperature", "warning", text, value, "give it air or a fan, or let it cool, before measuring")
    if all(zone.throttles_c is None for zone in zones):
        return Finding("temperature", "unknown", text + "; no zone says where it is slowed down", value)
    return Finding("temperature", "ok", text, value)


def _rails(root: str) -> Finding:
    energy = Energy(os.path.join(root, "sys/bus/i2c/drivers"))
    start = time.perf_counter()
    energy.start()
    time.sleep(0.1)
    joules = energy.stop()
    seconds = time.perf_counter() - start
    if joules is None:
        text = "no power monitor that edgekit knows can be read: records have no energy"
        return Finding("energy", "unknown", text)
    return Finding("energy", "ok", "{:.1f} W into the module".format(joules / seconds), joules / seconds)

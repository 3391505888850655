"""A fake Jetson for tests: files below a folder in the places where a Jetson has them, and small scripts on PATH.

NOT a board. What the files and scripts say is as boards were seen to say it: nv_tegra_release, `nvpmodel -q` and
`jetson_clocks --show` from records that users of Nano and Orin Nano published, sysfs from the kernel's documentation.
"""

from pathlib import Path

CLOCKS = """\
cpu0: Online=1 Governor=schedutil MinFreq=102000 MaxFreq=1479000 CurrentFreq=825600 IdleStates: WFI=1 c7=1
GPU MinFreq={gpu_min} MaxFreq=921600000 CurrentFreq=76800000
EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride={override}
Fan: PWM=0
NV Power Mode: MAXN
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def script(path: Path, body: str) -> None:
    write(path, "#!/bin/sh\n" + body)
    path.chmod(0o755)


def nano(root: Path) -> Path:
    """A Jetson Nano with JetPack 4.6.1 below `root`, all in order; the folder for PATH."""
    write(root / "etc/nv_tegra_release", "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref")
    memory(root)
    zone(root, 0, "CPU-therm", 41500, passive=97000, critical=102500)
    zone(root, 1, "GPU-therm", 40000, passive=98000)
    zone(root, 2, "PMIC-Die", 100000, critical=120000)
    processor(root, 1479000)
    rails = root / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(rails / "rail_name_0", "POM_5V_IN")
    write(rails / "in_power0_input", "4000")
    script(root / "usr/src/tensorrt/bin/trtexec", "exit 0")
    script(root / "bin/nvpmodel", 'echo "NV Fan Mode:quiet"; echo "NV Power Mode: MAXN"; echo 0')
    clocks(root, gpu_min=921600000, override=1)
    return root / "bin"


def memory(root: Path, total: int = 4059332, free: int = 2900000, swap: int = 2029660) -> None:
    """kB, as /proc/meminfo has them."""
    write(
        root / "proc/meminfo",
        f"MemTotal:        {total} kB\nMemFree:          99 kB\nMemAvailable:    {free} kB\n"
        f"SwapTotal:       {swap} kB\nSwapFree:        {swap} kB\nHugePages_Total:       0",
    )


def zone(root: Path, number: int, name: str, milli: int, **trips: int) -> None:
    folder = root / f"sys/class/thermal/thermal_zone{number}"
    write(folder / "type", name)
    write(folder / "temp", str(milli))
    for i, (kind, degrees) in enumerate([("passive", 0), *trips.items()]):
        write(folder / f"trip_point_{i}_type", kind)
        write(folder / f"trip_point_{i}_temp", str(degrees))


def processor(root: Path, least: int, governor: str = "schedutil") -> None:
    for core in range(4):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        write(folder / "scaling_governor", governor)
        for name, khz in (("min", least), ("max", 1479000), ("cur", 1479000)):
            write(folder / f"scaling_{name}_freq", str(khz))


def clocks(root: Path, gpu_min: int = 76800000, override: int = 0) -> None:
    script(root / "bin/jetson_clocks", f"cat <<'END'\n{CLOCKS.format(gpu_min=gpu_min, override=override)}END")

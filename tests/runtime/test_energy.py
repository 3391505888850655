"""Joules from files laid out as a Jetson's kernel shows its rails."""

import time
from pathlib import Path

import pytest

from edgekit.runtime.energy import Energy


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def jetpack_4(root: Path) -> None:
    write(root / "ina3221x" / "6-0040" / "iio:device0", rail_name_0="POM_5V_IN", in_power0_input="4000",
          rail_name_1="POM_5V_GPU", in_power1_input="900")  # fmt: skip


def jetpack_6(root: Path) -> None:
    write(root / "ina3221" / "1-0040" / "hwmon" / "hwmon1", in1_label="VDD_CPU_GPU_CV", in1_input="5000",
          curr1_input="100", in2_label="VDD_IN", in2_input="5000", curr2_input="800")  # fmt: skip


@pytest.mark.parametrize("board", [jetpack_4, jetpack_6])
def test_power_of_the_rail_into_the_module_times_seconds(board, tmp_path: Path):
    board(tmp_path)
    energy = Energy(str(tmp_path))
    start = time.perf_counter()
    energy.start()
    time.sleep(0.12)
    joules = energy.stop()
    elapsed = time.perf_counter() - start
    assert joules is not None and 0.12 * 4.0 * 0.9 <= joules <= elapsed * 4.0


def test_a_rail_that_fails_gives_no_part_of_the_sum(tmp_path: Path) -> None:
    jetpack_4(tmp_path)
    energy = Energy(str(tmp_path))
    (tmp_path / "ina3221x" / "6-0040" / "iio:device0" / "in_power0_input").write_text("busy")
    energy.start()
    assert energy.stop() is None


def test_no_rail_is_none_and_not_zero(tmp_path: Path) -> None:
    write(tmp_path / "ina3221" / "1-0040" / "hwmon" / "hwmon1", in1_label="VDD_SOC", in1_input="1", curr1_input="1")
    energy = Energy(str(tmp_path))
    energy.start()
    assert energy.stop() is None

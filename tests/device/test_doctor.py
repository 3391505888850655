"""The doctor on fake boards: a Jetson Nano of files and scripts with emulated libraries, and an emulated Atlas."""

import os
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from edgekit.device_profiles.registry import profile
from edgekit.runtime.doctor import examine
from edgekit.runtime.health import libraries
from edgekit.runtime.health.finding import Finding
from edgekit.runtime.health.room import disk
from tests.device import jetson_files
from tests.device.ascend import board as atlas
from tests.device.ascend.emulator import Emulator
from tests.device.tensorrt.cudart_emulator import Library

ROOT = Path(__file__).parents[2]
NANO = profile("jetson-nano").to_json()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "nano"
    monkeypatch.setenv("PATH", f"{jetson_files.nano(root)}{os.pathsep}{os.environ['PATH']}")
    return root


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: what is loaded from the same path is loaded once."""
    return tmp_path_factory.mktemp("modules")


@pytest.fixture
def tensorrt(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(modules, monkeypatch, "tensorrt", "__version__ = '8.2.1.8'")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """A module with nothing in it but `code`, where this process finds modules."""
    jetson_files.write(folder / f"{name}.py", code)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Library:
    """The CUDA 10.2 of a Nano, emulated."""
    from edgekit.runtime.backends.tensorrt import cudart

    library = Library(runtime=10020, capability=(5, 3), total=4 << 30)
    monkeypatch.setattr(cudart, "load", lambda: cudart.Cudart(library))
    return library


def look(root: Path, board: dict[str, Any] = NANO, backend: str = "tensorrt") -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(None, board, None, backend, str(root))}


def is_bad(finding: Finding, state: str, *words: str) -> None:
    """In `state`, with `words` in its text, and with advice."""
    assert finding.state == state, finding
    for word in words:
        assert word in finding.text, finding
    assert finding.advice


@pytest.mark.usefixtures("tensorrt", "cuda")
def test_a_nano_in_order_is_all_ok(root: Path) -> None:
    found = look(root)
    # The onnxruntime of this environment has no provider for CUDA, on which the board's profile wants to learn.
    assert {name: each.state for name, each in found.items() if each.state != "ok"} == {"provider": "warning"}, found
    assert found["provider"].text == "learning runs on cpu, not on cuda as planned"
    assert "pip install onnxruntime-gpu" in found["provider"].advice
    assert [found[name].value for name in ("tensorrt", "CUDA", "compute capability")] == ["8.2.1.8", "10.2", "5.3"]
    assert found["L4T"].text == "32.7.1, JetPack 4.6.1 to 4.6.6, expected 32.7.1 to 32.7.6"
    assert found["power mode"].value == "MAXN"
    assert found["board clocks"].value == {"gpu_mhz": 76.8, "gpu_max_mhz": 921.6, "locked": True}
    assert found["clocks"].value["governor"] == "schedutil" and found["clocks"].value["locked"] is True
    assert found["temperature"].value == {"CPU-therm": 41.5, "GPU-therm": 40.0}
    assert found["memory"].value["total_bytes"] == 4059332 * 1024
    assert found["trtexec"].value == str(root / "usr/src/tensorrt/bin/trtexec")
    # Sampled for 0.1 s, while other tests may hold the processors.
    assert 3.0 < found["energy"].value <= 4.1


@pytest.mark.usefixtures("tensorrt", "cuda")
def test_a_nano_out_of_order_says_what_and_what_to_do(root: Path) -> None:
    jetson_files.write(root / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081")
    jetson_files.script(root / "bin/nvpmodel", 'echo "NV Power Mode: 5W"; echo 1')
    jetson_files.clocks(root)
    jetson_files.processor(root, 102000)
    jetson_files.zone(root, 1, "GPU-therm", 88500, passive=98000)
    jetson_files.memory(root, free=600000, swap=0)
    shutil.rmtree(root / "sys/bus")
    found = look(root)
    is_bad(found["L4T"], "warning", "36.4.3, JetPack 6.1 to 6.2.2 is newer than expected: 32.7.1 to 32.7.6")
    is_bad(found["power mode"], "warning", "5W, which is not MAXN")
    is_bad(found["board clocks"], "warning", "77 of 922 MHz, moving with the load")
    is_bad(found["clocks"], "warning", "moving with the load, governor schedutil")
    is_bad(found["temperature"], "warning", "GPU-therm at 88 C, slowed at 98 C")
    is_bad(found["memory"], "failed", "0.57 of 3.87 GiB free")
    is_bad(found["swap"], "warning", "none")
    assert found["energy"].state == "unknown" and found["energy"].value is None
    jetson_files.memory(root, free=600000)
    assert look(root)["memory"].state == "warning"


@pytest.mark.usefixtures("tensorrt", "cuda")
def test_what_cannot_be_read_is_unknown_and_says_why(root: Path) -> None:
    jetson_files.script(root / "bin/nvpmodel", "exit 1")
    jetson_files.script(root / "bin/jetson_clocks", "echo 'Error: Run this script as a root user'; exit 1")
    jetson_files.write(root / "etc/nv_tegra_release", "something else")
    shutil.rmtree(root / "sys")
    shutil.rmtree(root / "proc")
    found = look(root)
    for name, why in {
        "power mode": "does not say it",
        "board clocks": "Error: Run this script as a root user",
        "L4T": "something else",
        "clocks": "no cpufreq",
        "temperature": "no thermal zone",
        "memory": "does not say how much",
        "swap": "does not say how much",
        "energy": "no power monitor",
    }.items():
        assert found[name].state == "unknown" and why in found[name].text and found[name].value is None
    shutil.rmtree(root / "bin")
    assert "not on PATH" in look(root)["power mode"].text


def test_a_zone_without_a_limit_is_not_called_ok(root: Path) -> None:
    for folder in (root / "sys/class/thermal").iterdir():
        for trip in folder.glob("trip*"):
            trip.unlink()
    found = look(root, profile("cpu").to_json(), "onnxruntime")["temperature"]
    assert found.state == "unknown" and found.value == {"CPU-therm": 41.5, "GPU-therm": 40.0}


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        ("__version__ = '8.0.1.6'", "failed", "8.0.1.6 is older than expected: 8.2.1"),
        ("__version__ = '10.3.0'", "warning", "10.3.0 is newer than expected: 8.2.1"),
        ("raise ImportError('libnvinfer.so.8: cannot open')", "failed", "does not load: ImportError: libnvinfer.so.8"),
        ("import os; os.abort()", "failed", "does not load: it was ended by signal 6"),
        ("pass", "unknown", "does not say its version"),
        ("__version__ = 'dev'", "unknown", "'dev' does not begin with a version"),
    ],
)
def test_a_library_is_loaded_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, state: str, words: str
) -> None:
    install(tmp_path, monkeypatch, "tensorrt", code)
    found = libraries.library("tensorrt", NANO["versions"])
    assert found.state == state and words in found.text
    assert found.advice or code == "pass"


@pytest.mark.usefixtures("tensorrt")
def test_a_driver_that_fails(root: Path, cuda: Library) -> None:
    cuda.devices = 0
    found = look(root)["driver"]
    is_bad(found, "failed", "cudaErrorInsufficientDriver")
    assert "--runtime nvidia" in found.advice
    # Nothing else of CUDA was called, and so nothing of TensorRT either.
    assert cuda.calls == ["cudaGetDeviceCount"]


@pytest.mark.usefixtures("tensorrt", "cuda")
def test_another_boards_profile(root: Path) -> None:
    found = look(root, profile("jetson-orin-nano").to_json())
    is_bad(found["compute capability"], "warning", "5.3 is older than expected: 8.7")
    is_bad(found["CUDA"], "warning", "10.2 is older than expected: 12.6")
    is_bad(found["tensorrt"], "failed", "8.2.1.8 is older")


def test_an_atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # For the process that loads the library; this one has the emulator itself.
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "device" / "ascend" / "emulated"))
    with atlas.board(Emulator(chip="Ascend310B4"), tmp_path, monkeypatch):
        # A module without one is taken for broken.
        sys.modules["acl"].__spec__ = ModuleSpec("acl", None)
        found = look(tmp_path, profile("atlas-200i-dk-a2").to_json(), "ascend")
        assert found["acl"].text == "CANN 7.0.RC1, expected 6.0.1 to 7.0" and found["acl"].state == "ok"
        assert (found["driver"].state, found["driver"].value) == ("ok", "Ascend310B4")
        assert found["atc"].state == "ok" and found["atc"].value == str(tmp_path / "cann" / "bin" / "atc")
        found = look(tmp_path, profile("atlas-200-dk").to_json(), "ascend")
        is_bad(found["driver"], "failed", "the chip is Ascend310B4, graphs are compiled for Ascend310")
        is_bad(found["acl"], "warning", "CANN 7.0.RC1 is newer than expected: 5.0.4")
        shutil.rmtree(tmp_path / "cann")
        found = look(tmp_path, profile("atlas-200-dk").to_json(), "ascend")
        is_bad(found["atc"], "failed", "not here")
        assert found["acl"].state == "unknown"
        jetson_files.write(tmp_path / "cache" / "ascend-0123456789abcdef-32x3x32x32.engine", "")
        is_bad(look(tmp_path, profile("atlas-200-dk").to_json(), "ascend")["atc"], "warning", "1 compiled before")


def test_engines_are_kept_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "not" / "yet" / "there"))
    (found,) = disk(None, "tensorrt")
    assert found.state == "ok" and found.value["path"] == str(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    (found,) = disk(None, "tensorrt")
    is_bad(found, "warning", "0.00 GiB free", "wanted 0.06")
    assert "EDGEKIT_CACHE" in found.advice

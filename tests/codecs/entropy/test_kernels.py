"""Which kernels are used, and what is said where the compiled ones cannot be."""

import os
import platform
import subprocess
import sys

import pytest

from edgekit.codecs.entropy import kernels
from edgekit.codecs.entropy.native import library
from edgekit.errors import BackendError, UnknownName


@pytest.fixture
def unloaded():
    """As in a process that has not loaded the library yet."""
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_numpy_can_be_asked_for():
    assert kernels.choose("numpy") == ("numpy", "asked for by EDGEKIT_CODER", True)


def test_another_name_is_refused():
    with pytest.raises(UnknownName, match="unknown EDGEKIT_CODER 'nativ': did you mean native"):
        kernels.choose("nativ")


@pytest.mark.parametrize("asked", ["", None])
def test_compiled_kernels_are_taken_where_they_load(asked):
    on_this = sys.platform == "linux" and platform.machine() in library.MACHINES
    assert kernels.choose(asked).name == ("native" if on_this else "numpy")


@pytest.mark.parametrize(
    ("platform_name", "machine"), [("linux", "riscv64"), ("darwin", "arm64"), ("win32", "AMD64"), ("darwin", "x86_64")]
)
def test_a_machine_without_a_library(platform_name, machine, monkeypatch, unloaded):
    monkeypatch.setattr(sys, "platform", platform_name)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    told = f"compiled kernels for Linux on x86_64 and aarch64, this is {platform_name} on {machine}"
    choice = kernels.choose(None)
    assert choice.name == "numpy" and told in choice.reason
    with pytest.raises(BackendError, match=f"EDGEKIT_CODER=native, but .*{machine}; without it numpy is used"):
        kernels.choose("native")


def test_a_library_of_another_processor(monkeypatch, unloaded):
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
    monkeypatch.setattr(platform, "machine", lambda: other)
    choice = kernels.choose(None)
    assert choice.name == "numpy" and f"libedgekit_coder-{other}.so does not load: " in choice.reason


def test_a_library_of_another_version(monkeypatch, unloaded):
    monkeypatch.setattr(library, "ABI", library.ABI + 1)
    told = f"interface {library.ABI - 1}, expected {library.ABI}: install edgekit anew"
    choice = kernels.choose(None)
    assert choice.name == "numpy" and told in choice.reason


def test_using_ends_where_it_began():
    before = kernels.choice()
    with kernels.using("numpy"):
        assert kernels.pick(1, 2) == 2
    assert kernels.choice() == before


@pytest.mark.parametrize("name", kernels.NAMES)
def test_the_environment_decides(name):
    code = "from edgekit.codecs.entropy import kernels; print(*kernels.choice()[:2], sep=': ')"
    environment = {**os.environ, "EDGEKIT_CODER": name}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{name}: asked for by EDGEKIT_CODER\n", "")


def test_a_wrong_name_is_told_before_anything_is_written(tmp_path):
    train = [sys.executable, "-m", "edgekit", "train", "vgg11_thin", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "EDGEKIT_CODER": "nativ"}
    done = subprocess.run(train, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == UnknownName.exit_code and "unknown EDGEKIT_CODER 'nativ'" in done.stderr
    assert not (tmp_path / "out").exists()

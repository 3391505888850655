"""The wheel holds the whole tree, and pyproject lists it."""

import email
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgekit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BESIDE = ("device_profiles", "export", "runtime", "server")


def tree(*endings: str) -> set[str]:
    """Files of the package by their path in a wheel, links followed."""
    found = set()
    for folder, _, files in os.walk(ROOT / "edgekit", followlinks=True):
        found |= {Path(folder, file).relative_to(ROOT).as_posix() for file in files if file.endswith(endings)}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel built from a copy of the working files, without the network."""
    place = tmp_path_factory.mktemp("build")
    copy = place / "copy"
    for name in ("edgekit", *BESIDE):
        skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "-w", str(place), str(copy)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = place.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_links_lead_to_the_folders_beside() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "edgekit").iterdir() if path.is_symlink()}
    assert links == {name: f"../{name}" for name in BESIDE}


def test_pyproject_lists_every_package() -> None:
    packages = {str(Path(file).parent).replace(os.sep, ".") for file in tree(".py")}
    settings = PROJECT["tool"]["setuptools"]
    assert settings["packages"] == sorted(packages)
    assert settings["package-dir"] == {f"edgekit.{name}": name for name in BESIDE}
    assert {f"{package.replace('.', '/')}/__init__.py" for package in packages} <= tree(".py")


def test_wheel_holds_every_file(wheel: zipfile.ZipFile) -> None:
    content = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert content == tree(".c", ".h", ".html", ".py", ".so", ".toml", "py.typed")
    assert wheel.read("edgekit/export/models/vgg.py") == (ROOT / "export/models/vgg.py").read_bytes()


def test_wheel_describes_itself(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Version"] == edgekit.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"export", "server", "onnxruntime", "tensorrt", "all"} <= set(metadata.get_all("Provides-Extra", []))
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[^a-z]", line)[0] for line in required} == {"numpy", "click", "rich"}
    tags = {Path(name).name for name in wheel.namelist() if ".dist-info/" in name}
    assert {"LICENSE", "entry_points.txt"} <= tags


def test_command_can_be_called() -> None:
    module, function = PROJECT["project"]["scripts"]["edgekit"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == edgekit.__version__


def test_constraints_pin_every_requirement() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==\d", text, re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["export"], *extras["server"], *extras["all"], *extras["dev"]]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in wanted} - {"edgekit"}
    assert not names - pinned
    assert "torch==2.13.0\n" in text

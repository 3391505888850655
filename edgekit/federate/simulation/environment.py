"""Flower's environment: a Python of its own, since Flower and edgekit's other parts want other versions of packages.

`make flower` makes it beside the checkout, and `edgekit federate` starts Flower's programs there.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import edgekit
from edgekit.errors import UsageError

#: What `make flower` makes, in the checkout.
FOLDER = ".venv-flower"
#: The programs that are started: the user's side of Flower, and its server.
PROGRAMS = ("flwr", "flower-superlink")


def find(folder: str | None = None) -> Path:
    """The folder of the programs of the environment `folder`; None: this one, if it has Flower, else `FOLDER`.

    UsageError where Flower is not there, with the command that makes it.
    """
    here = Path(sys.executable).parent
    if folder is None and _has(here):
        return here
    root = Path(edgekit.__file__).resolve().parents[1]
    place = Path(folder) if folder is not None else root / FOLDER
    if _has(place / "bin"):
        return (place / "bin").absolute()
    made = f"`make flower` in {root} makes {FOLDER}"
    if not (root / "Makefile").exists():
        made = f"`python3 -m venv {FOLDER}` and `{FOLDER}/bin/pip install 'edgekit[flower]'` make one"
    raise UsageError(f"Flower is not in {place}: {made}; --flower DIR names another environment that has it")


def variables(programs: Path, home: Path) -> Mapping[str, str]:
    """What Flower's processes find in their environment: their programs and this edgekit; `home` is Flower's own.

    Flower asks nobody for updates, tells nobody of the run, and installs nothing.
    """
    # The module of a network of the user's own is in the folder that edgekit was called in.
    paths = [str(Path(edgekit.__file__).resolve().parents[1]), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return {
        "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _has(programs: Path) -> bool:
    return all(os.access(programs / name, os.X_OK) for name in PROGRAMS)

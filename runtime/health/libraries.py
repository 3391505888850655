"""Python and the libraries that a backend needs: whether they are installed and load, and their versions."""

import functools
import importlib.util
import os
import platform
import sys
from typing import Dict, Tuple

from edgekit.errors import BackendError, UsageError
from edgekit.providers import AUTO, CPU, choose, short
from edgekit.runtime.backends.ascend import cann
from edgekit.runtime.health.commands import told_by
from edgekit.runtime.health.finding import Finding, compared

#: Library -> oldest version that edgekit supports.
OLDEST = {"numpy": "1.19", "grpc": "1.48", "onnxruntime": "1.10", "tensorrt": "8.2"}
INSTALL = {
    "numpy": "pip install numpy; on Python 3.6 numpy==1.19.5",
    "grpc": "pip install grpcio; on Python 3.6 grpcio==1.48.2",
    "onnxruntime": "pip install onnxruntime; on Python 3.6 onnxruntime==1.10.0",
    "tensorrt": "on a Jetson it belongs to the system's own Python: apt-get install python3-libnvinfer, and use that "
    "Python, or a venv made with --system-site-packages",
    "acl": "install CANN on the board, then {}".format(cann.SOURCE),
}
#: What to do about a library that ends the process when it is loaded.
_CRASH = (
    "it ends the process that loads it: it was built for another processor. On a Jetson Nano numpy 1.19.5 wants "
    "`export OPENBLAS_CORETYPE=ARMV8`; else install another version"
)


def python(profile_floor: str) -> Finding:
    """The finding for this Python; `profile_floor` is the oldest one of the board's image, "3.6"."""
    advice = "use the Python of the board's own image: libraries such as tensorrt are installed there"
    found = compared("python", platform.python_version(), ">= " + profile_floor, "failed", advice)
    return found._replace(text="{} ({})".format(found.text, sys.executable))


def library(name: str, versions: Dict[str, str]) -> Finding:
    """The finding for library `name`, loaded in a process of its own, because a bad one may crash it.

    Its version is compared with that of the profile, `versions`, else with `OLDEST`.
    """
    if importlib.util.find_spec(name) is None:
        return Finding(name, "failed", "not installed for {}".format(sys.executable), None, INSTALL[name])
    printed, reason = _loaded(name, os.pathsep.join(path for path in sys.path if path))
    if reason:
        advice = _CRASH if "signal" in reason else INSTALL[name]
        return Finding(name, "failed", "installed, but it does not load: {}".format(reason), None, advice)
    if name == "acl":
        return _cann(versions)
    version = printed.splitlines()[-1].strip() if printed else ""
    if not version:
        return Finding(name, "unknown", "loads, but does not say its version")
    wanted = versions.get(name, ">= " + OLDEST[name])
    advice = INSTALL[name]
    if name in versions:
        advice = "install the version that the profile names, or export the bundle with the profile of this board"
    return compared(name, version, wanted, "failed", advice)


def provider(asked: str, wanted: str, exported: bool) -> Finding:
    """The finding for the provider that runs the graphs that learn: the one `asked` for, or the one `wanted`.

    `exported`: a bundle was exported for the wanted one; else a board's profile names it, and any can be exported for.
    """
    code = "import onnxruntime; print(*onnxruntime.get_available_providers())"
    path = os.pathsep.join(path for path in sys.path if path)
    printed, reason = told_by([sys.executable, "-c", code], dict(os.environ, PYTHONPATH=path))
    if reason:
        return Finding("provider", "unknown", "onnxruntime does not say which it has: {}".format(reason))
    offered = printed.splitlines()[-1].split()
    exported_for = wanted if exported or asked in (AUTO, CPU) else asked
    try:
        found = choose(asked, exported_for, offered)
    except (BackendError, UsageError) as error:
        text, _, advice = str(error).rpartition(": ")
        return Finding("provider", "failed", text, list(short(offered)), advice)
    if found.name != found.wanted:
        text = "learning runs on {}, not on {} as planned".format(found.name, found.wanted)
        return Finding("provider", "warning", text, found.name, found.reason)
    return Finding("provider", "ok", "learning runs on {}".format(found.name), found.name)


@functools.lru_cache(maxsize=None)
def _loaded(name: str, path: str) -> Tuple[str, str]:
    """What `told_by` returns of a process that loads `name`, from `path` as this one would, and prints its version."""
    code = "import {0}; print(getattr({0}, '__version__', ''))".format(name)
    return told_by([sys.executable, "-c", code], dict(os.environ, PYTHONPATH=path))


def _cann(versions: Dict[str, str]) -> Finding:
    """The finding for a pyACL that loads: its version is that of CANN."""
    try:
        version = cann.version()
    except BackendError as error:
        return Finding("acl", "unknown", "loads, but {}".format(error), None, INSTALL["acl"])
    advice = "install the CANN that the profile names, or export the bundle with a profile of this board"
    if "cann" not in versions:
        return Finding("acl", "ok", "CANN {}".format(version), version)
    return compared("acl", version, versions["cann"], "failed", advice, "CANN")

"""The accelerator: its driver, its chip, and the compiler that makes engines for it."""

import glob
import os
import shutil
from typing import Dict, List

from edgekit.errors import BackendError
from edgekit.runtime import cache
from edgekit.runtime.backends.ascend import cann, process
from edgekit.runtime.backends.tensorrt import cudart
from edgekit.runtime.health.finding import GIB, Finding, compared


def engine(backend: str, versions: Dict[str, str], root: str) -> List[Finding]:
    """The findings about the accelerator of `backend`; none when it uses no accelerator."""
    if backend == "tensorrt":
        return [*_cuda(versions), _trtexec(root)]
    if backend == "ascend":
        return [_chip(versions), _atc()]
    return []


def _cuda(versions: Dict[str, str]) -> List[Finding]:
    """The findings of the CUDA driver. It goes before TensorRT, whose objects crash the process without a driver."""
    try:
        cuda = cudart.load()
        count = cuda.device_count()
        version, capability, (free, total) = cuda.version(), cuda.compute_capability(), cuda.memory()
    except BackendError as error:
        return [_no_driver(error)]
    memory = "{:.1f} of {:.1f} GiB free".format(free / GIB, total / GIB)
    found = [Finding("driver", "ok", "shows {} GPU, {}".format(count, memory), count)]
    advice = "export the bundle with the profile of this board; engines are built here, but its rules are another's"
    for name, actual, what in (("cuda", version, "CUDA"), ("compute_capability", capability, "compute capability")):
        if name in versions:
            found.append(compared(what, actual, versions[name], "warning", advice))
        else:
            found.append(Finding(what, "ok", actual, actual))
    return found


def _trtexec(root: str) -> Finding:
    # JetPack installs it outside PATH.
    path = shutil.which("trtexec") or shutil.which("trtexec", path=os.path.join(root, "usr/src/tensorrt/bin"))
    if path:
        return Finding("trtexec", "ok", path, path)
    return Finding("trtexec", "ok", "not here, and not needed: edgekit builds engines itself")


def _chip(versions: Dict[str, str]) -> Finding:
    try:
        chip = process.process().chip()
    except BackendError as error:
        return _no_driver(error)
    if chip is None:
        return Finding("driver", "unknown", "pyACL starts, but this CANN does not name the chip")
    planned = versions.get("soc_version", chip)
    if chip != planned:
        advice = "export it with a profile whose soc_version is {} (docs/devices.md, A board of your own)".format(chip)
        text = "the chip is {}, graphs are compiled for {}".format(chip, planned)
        return Finding("driver", "failed", text, chip, advice)
    return Finding("driver", "ok", "the chip is {}".format(chip), chip)


def _atc() -> Finding:
    path = cann.find_atc()
    if path:
        return Finding("atc", "ok", path, path)
    advice = "{}; or compile on a host with the same CANN (docs/atlas.md)".format(cann.SOURCE)
    kept = glob.glob(cache.path("ascend-*"))
    if kept:
        text = "not here; {} compiled before can be used, but no new weights".format(len(kept))
        return Finding("atc", "warning", text, None, advice)
    text = "not here, and nothing compiled before is in {}".format(cache.folder())
    return Finding("atc", "failed", text, None, advice)


def _no_driver(error: BackendError) -> Finding:
    """The finding for `error`: in messages of drivers the last colon is before what to do."""
    text, _, advice = str(error).rpartition(": ")
    return Finding("driver", "failed", text or advice, None, advice if text else "")

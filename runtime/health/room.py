"""Free memory, swap and disk, compared with what a run needs."""

import os
import shutil
from typing import TYPE_CHECKING, Dict, List, Optional

from edgekit import machine
from edgekit.runtime import cache
from edgekit.runtime.backends.registry import entry_of
from edgekit.runtime.health.finding import GIB, Finding

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

MIB = float(1 << 20)
#: Images of a batch, when the graph leaves it open.
BATCH = 32
#: A device process on ONNX Runtime takes this many MiB for its libraries, and this many times the bytes that a batch
#: saves for its backward pass. Measured on x86-64: 426 MiB with 63 MiB of those (MobileNet-V1), 651 MiB with 120 MiB
#: (ResNet-18).
PROCESS_MIB, PER_SAVED = 192.0, 4.0
#: With less memory than this, making an engine may need swap.
SMALL_GIB = 6.0
#: MiB of free disk that weights and records may need.
DISK_MIB = 64.0


def memory(bundle: "Optional[Bundle]", backend: str, root: str) -> List[Finding]:
    """The findings for memory, free against an estimate of what a device process takes, and for swap."""
    told = machine.memory(root)
    if "MemAvailable" not in told:
        text = "/proc/meminfo does not say how much is free"
        return [Finding("memory", "unknown", text), Finding("swap", "unknown", text)]
    free, total = told["MemAvailable"], told["MemTotal"]
    swap, swap_free = told.get("SwapTotal", 0), told.get("SwapFree", 0)
    accelerator_mib = entry_of(backend).accelerator_mib
    need = (PROCESS_MIB + accelerator_mib) * MIB + PER_SAVED * _saved(bundle)
    text = "{:.2f} of {:.2f} GiB free, a run takes about {:.2f}".format(free / GIB, total / GIB, need / GIB)
    value = {"free_bytes": free, "total_bytes": total, "needed_bytes": int(need)}
    advice = "end other programs, or export with a smaller --static-batch"
    state = "ok" if free >= need else "warning" if free + swap_free >= need else "failed"
    found = [Finding("memory", state, text, value, "" if state == "ok" else advice)]
    text = "{:.2f} of {:.2f} GiB free".format(swap_free / GIB, swap / GIB) if swap else "none"
    value = {"free_bytes": swap_free, "total_bytes": swap}
    if not swap and total < SMALL_GIB * GIB and accelerator_mib:
        advice = "a compiler may run out of memory on this board: add swap (a file, or zram)"
        return [*found, Finding("swap", "warning", text, value, advice)]
    return [*found, Finding("swap", "ok", text, value)]


def _saved(bundle: "Optional[Bundle]") -> float:
    """The bytes that the forward pass of a batch saves for the backward pass; 0 without a bundle."""
    if bundle is None:
        return 0.0
    import numpy as np

    total = 0.0
    for spec in bundle.graphs["front_train"].outputs:
        shape = [BATCH if length == -1 else length for length in spec.shape]
        total += float(np.prod(shape, dtype=np.float64)) * np.dtype(spec.dtype).itemsize
    return total


def disk(bundle: "Optional[Bundle]", backend: str) -> List[Finding]:
    """The findings for free disk: at the bundle, and at the cache of engines if `backend` makes any."""
    found = []
    if bundle is not None:
        found.append(_free("disk of the bundle", bundle.path, DISK_MIB * MIB, "make room"))
    if entry_of(backend).accelerator_mib:
        files: Dict[str, Dict[str, int]] = bundle.manifest["files"] if bundle is not None else {}
        # An engine is about as large as its graph, and is written before the old one is removed.
        graph = files["front.onnx"]["bytes"] if "front.onnx" in files else 0
        advice = "make room, or set EDGEKIT_CACHE to another folder: else every start builds the engine again"
        kept = _free("disk of engines", cache.folder(), DISK_MIB * MIB + 4.0 * graph, advice)
        folder = kept.value["path"] if kept.value else ""
        if folder and not os.access(folder, os.W_OK):
            text = "{} may not be written to by this user".format(folder)
            kept = Finding(kept.name, "warning", text, kept.value, advice)
        found.append(kept)
    return found or [_free("disk", os.getcwd(), DISK_MIB * MIB, "make room")]


def _free(name: str, path: str, need: float, advice: str) -> Finding:
    """The finding for free bytes at `path`, or at the nearest folder above it that exists."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(name, "unknown", "{}: {}".format(folder, error.strerror))
    text = "{:.2f} GiB free in {}".format(free / GIB, folder)
    value = {"free_bytes": free, "path": folder}
    if free < need:
        return Finding(name, "warning", "{}, wanted {:.2f}".format(text, need / GIB), value, advice)
    return Finding(name, "ok", text, value)

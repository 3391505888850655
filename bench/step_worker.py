"""One engine that trains a front half, in a process with nothing else in it: what bench/peer_steps.py starts.

``python bench/step_worker.py ENGINE FOLDER``: trains what FOLDER holds (step_task.py) for `CHECKED` steps, writes the
weights there, and tells the bytes on disk of all that it needs. For every line {"steps": n} of standard input it then
makes n steps and tells the milliseconds of each, by wall clock ("ms") and of the process's CPU time ("cpu_ms"). Lines
are JSON objects, both ways.

A step is a device's: the training forward pass, the feature as an array, which would be sent, the gradients of the
weights from a given gradient at the cut, and SGD's step. The interpreter needs numpy and the engine alone.
"""

import importlib
import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from arguments import Arguments
from step_task import CHECKED, Engine, read, write_weights


class Kind(NamedTuple):
    """How an engine is made: module and class, arguments besides the task, and the distributions that it needs."""

    module: str
    name: str
    arguments: dict[str, Any]
    needs: tuple[str, ...]


ENGINES = {
    "pytorch": Kind("step_pytorch", "PyTorchEngine", {}, ("torch", "numpy")),
    "pytorch-channels-last": Kind("step_pytorch", "PyTorchEngine", {"channels_last": True}, ("torch", "numpy")),
    "mnn": Kind("step_mnn", "MnnEngine", {}, ("mnn", "numpy")),
    "mnn-unread": Kind("step_mnn", "MnnEngine", {"read_feature": False}, ("mnn", "numpy")),
    "edgekit": Kind("step_edgekit", "EdgekitEngine", {"codec": "raw"}, ("onnxruntime", "numpy")),
    "edgekit-sgq": Kind("step_edgekit", "EdgekitEngine", {"codec": "sgq"}, ("onnxruntime", "numpy")),
}


def made(kind: Kind, folder: str) -> Engine:
    given = {"folder": folder} if "codec" in kind.arguments else {}
    engine: Engine = getattr(importlib.import_module(kind.module), kind.name)(read(folder), **given, **kind.arguments)
    return engine


def installed(distributions: Sequence[str]) -> dict[str, int]:
    """Bytes on disk of each of `distributions` and of all that they require, by name and version."""
    sizes: dict[str, int] = {}
    wanted = list(distributions)
    while wanted:
        found = importlib.metadata.distribution(wanted.pop())
        name = f"{found.metadata['Name']} {found.version}"
        if name not in sizes:
            sizes[name] = sum(os.path.getsize(str(file.locate())) for file in found.files or ())
            # A requirement with a condition is one of an extra, or of another Python.
            wanted += [re.split(r"[^\w.-]", each)[0] for each in found.requires or () if ";" not in each]
    return sizes


def timed(engine: Engine, steps: int) -> dict[str, list[float]]:
    told: dict[str, list[float]] = {"ms": [], "cpu_ms": []}
    for _ in range(steps):
        start, cpu = time.perf_counter(), time.process_time()
        engine.step()
        told["cpu_ms"].append(1e3 * (time.process_time() - cpu))
        told["ms"].append(1e3 * (time.perf_counter() - start))
    return told


def main() -> None:
    options = Arguments(__doc__, "engine", "folder").parse_args()
    # Libraries that greet on standard output do so on standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    engine = made(ENGINES[options.engine], options.folder)
    timed(engine, CHECKED)
    write_weights(engine.weights(), options.folder, options.engine)
    answers.write(json.dumps({"installed": installed(ENGINES[options.engine].needs)}) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(timed(engine, json.loads(line)["steps"])) + "\n")


if __name__ == "__main__":
    main()

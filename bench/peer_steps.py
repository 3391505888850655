"""A training step on the device: edgekit against PyTorch and MNN, on the same front half, weights and batch.

``python bench/peer_steps.py [--models MODEL@CUT,...] [--mnn-python PATH] [--out FILE]``: every engine is a process with
one thread (step_worker.py says what a step is). They take turns of a few steps, in an order drawn anew every round.
``--show FILE`` prints the table of such a file.

=====================  =================================================================================================
pytorch                autograd and torch.optim.SGD
pytorch-channels-last  the same with that memory format
mnn                    MNN.nn and MNN.optim.SGD; run by ``--mnn-python``, the interpreter of an environment that has
                       PyPI's `MNN` (``python -m venv ENV; ENV/bin/pip install MNN``); without it, left out
mnn-unread             the same, but the feature is never read: what a device would do that need not send it
edgekit                a bundle that sends features as they are, "raw"
edgekit-sgq            a bundle that quantises features: work that no other row does
=====================  =================================================================================================

Before anything is timed, all engines make three steps, and their weights must be those of autograd on the model itself:
"deviation" is the norm of the difference over the norm of what the steps changed. The table has the process's CPU time,
which with one thread is the time on an idle core; records have the wall clock's too. Memory is the highest resident
size of a process from its start. "installed" are the files of what the engine needs besides Python, all that it
requires among them.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from step_task import CHECKED, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Arrays, Task, read_weights, write
from step_worker import ENGINES
from timing import quartiles
from torch import fx, nn

from edgekit.codecs.registry import feature_codec
from edgekit.deploy.package import device_files
from edgekit.export.build import build_bundle
from edgekit.export.models.registry import MODELS, build
from edgekit.export.settings import CalibrationImages, Coding, Network
from edgekit.export.split import split
from edgekit.machine import describe, usage

SHAPE, CLASSES = (3, 32, 32), 10
CUT_MODELS = "mobilenet_v1@blocks.4,vgg11_thin@features.10"
#: Largest deviation. A ReLU whose input is about zero is on in one engine and off in another: PyTorch's two memory
#: formats differ by 6e-3 on mobilenet_v1.
TOLERANCE = 2e-2
BASE = "pytorch"


class Worker:
    """A process that trains what `folder` holds with `engine`; ends with the block."""

    def __init__(self, python: str, engine: str, folder: str) -> None:
        self.engine = engine
        script = str(Path(__file__).with_name("step_worker.py"))
        self._process = subprocess.Popen(
            [python, script, engine, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=dict(os.environ, OMP_NUM_THREADS="1"),
        )
        self.installed: dict[str, int] = self._answer()["installed"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def steps(self, n: int) -> dict[str, list[float]]:
        """Milliseconds of each of `n` steps, "ms" and "cpu_ms"."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"steps": n}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    @property
    def peak_bytes(self) -> int | None:
        return usage(self._process.pid).peak_bytes

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.engine} ended with {self._process.wait()}: see its words above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def layers(front: fx.GraphModule) -> list[dict[str, Any]]:
    """The layers of `front` as `Task` has them; SystemExit where it is more than a chain of those kinds."""
    found = []
    modules = dict(front.named_modules())
    for node in front.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and layer.bias is None and layer.groups in (1, layer.in_channels):
            size = {"in": layer.in_channels, "out": layer.out_channels, "groups": layer.groups}
            sides = {"kernel": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
            found.append({"kind": "conv", "name": node.target, **size, **{key: sides[key][0] for key in sides}})
        elif isinstance(layer, nn.BatchNorm2d):
            found.append({"kind": "norm", "name": node.target, "channels": layer.num_features})
        elif isinstance(layer, nn.ReLU):
            found.append({"kind": "relu"})
        elif isinstance(layer, nn.MaxPool2d) and layer.kernel_size == layer.stride:
            found.append({"kind": "pool", "kernel": layer.kernel_size})
        else:
            raise SystemExit(f"layer '{node.target}': expected a chain of convolution, batch norm, ReLU and max-pool")
    return found


def prepare(model: str, cut: str, batch: int, folder: str) -> Arrays:
    """Writes the task and the bundles to `folder`. The weights that `CHECKED` steps of autograd lead to."""
    network = build(model, SHAPE, CLASSES, 0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    calibration = CalibrationImages(images, (0.5,) * 3, (0.25,) * 3, CLASSES)
    for codec in ("raw", "sgq"):
        coding = Coding(feature_codec(codec, {}))
        build_bundle(os.path.join(folder, codec), Network(network, model, cut), calibration, coding)
    front = split(network, cut)[0].train()
    image = torch.from_numpy(rng.standard_normal((batch, *SHAPE), dtype=np.float32))
    gradient = torch.from_numpy(1e-3 * rng.standard_normal(front(image).shape, dtype=np.float32))
    weights = {name: value.detach().numpy().copy() for name, value in front.named_parameters()}
    write(Task(image.numpy(), gradient.numpy(), weights, layers(front)), folder)
    optimizer = torch.optim.SGD(front.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
    for _ in range(CHECKED):
        optimizer.zero_grad()
        front(image).backward(gradient)
        optimizer.step()
    return {name: value.detach().numpy() for name, value in front.named_parameters()}


def deviation(engine: str, expected: Arrays, folder: str) -> float:
    """Of the weights that `engine` has come to from those that `expected` says."""
    before, found = (read_weights(folder, of) for of in ("given", engine))
    off = sum(float(np.sum(np.square(found[name].reshape(value.shape) - value))) for name, value in expected.items())
    moved = sum(float(np.sum(np.square(before[name] - value))) for name, value in expected.items())
    share = float(np.sqrt(off / moved))
    if not share < TOLERANCE:
        raise SystemExit(f"{engine}: weights deviate by {share:.2g} of what the steps change, expected {TOLERANCE:g}")
    return share


def measure(model: str, cut: str, pythons: dict[str, str], options: Any) -> list[dict[str, Any]]:
    """A row for each engine, which its interpreter runs."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        expected = prepare(model, cut, options.batch, folder)
        workers = [stack.enter_context(Worker(python, engine, folder)) for engine, python in pythons.items()]
        deviations = {worker.engine: deviation(worker.engine, expected, folder) for worker in workers}
        rounds: dict[str, list[dict[str, list[float]]]] = {engine: [] for engine in pythons}
        for _ in range(options.repeats):
            for i in rng.permutation(len(workers)):
                rounds[workers[i].engine].append(workers[i].steps(options.steps))
        rows = []
        for worker in workers:
            own = rounds[worker.engine]
            row: dict[str, Any] = {"model": model, "cut": cut, "engine": worker.engine}
            for clock in ("ms", "cpu_ms"):
                base = [statistics.median(each[clock]) for each in rounds[BASE]]
                medians = [statistics.median(each[clock]) for each in own]
                row[clock] = quartiles(np.concatenate([each[clock] for each in own]), 2)
                row[clock]["ratio_to_pytorch"] = round(statistics.median(np.divide(medians, base).tolist()), 3)
            needs = dict(worker.installed)
            if worker.engine.startswith("edgekit"):
                needs["edgekit's device part"] = sum(map(len, device_files().values()))
            rows.append({
                **row, "deviation": deviations[worker.engine], "peak_bytes": worker.peak_bytes, "installed": needs
            })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of the rows of a record."""
    cells = []
    for row in rows:
        ms = row["cpu_ms"]
        cells.append((
            row["model"], row["engine"],
            f"{ms['median_ms']:.1f} ({ms['quartile1_ms']:.1f} to {ms['quartile3_ms']:.1f})",
            f"{ms['ratio_to_pytorch']:.2f}x", f"{row['peak_bytes'] / 1e6:.0f}",
            f"{sum(row['installed'].values()) / 1e6:.0f}",
        ))  # fmt: skip
    return markdown.table(("model", "engine", "ms a step", "to pytorch", "memory, MB", "installed, MB"), cells)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=CUT_MODELS, engines=",".join(ENGINES), mnn_python=None)
    arguments.add("rounds", repeats=15)
    arguments.add("steps of an engine's turn", steps=4)
    arguments.add(batch=32)
    options = arguments.parse_or_show(lambda made: table(made["results"]))
    torch.set_num_threads(1)
    engines = options.engines.split(",")
    unknown = set(engines) - set(ENGINES)
    if unknown or BASE not in engines:
        arguments.error(f"--engines {options.engines}: expected {BASE} and others of {', '.join(ENGINES)}")
    if options.mnn_python and not shutil.which(options.mnn_python):
        arguments.error(f"--mnn-python {options.mnn_python}: no program there, expected a Python that has MNN")
    pythons = {name: options.mnn_python if name.startswith("mnn") else sys.executable for name in engines}
    for name in [name for name, python in pythons.items() if python is None]:
        sys.stderr.write(f"{name} is left out: --mnn-python names no interpreter\n")
        del pythons[name]
    rows = []
    for each in options.models.split(","):
        model, _, cut = each.partition("@")
        rows += measure(model, cut or MODELS[model].cut, pythons, options)
        sys.stderr.write(table(rows) + "\n")
    head = {**record.head(), "machine": describe(), "batch": options.batch}
    record.finish({**head, "results": rows}, options.out)


if __name__ == "__main__":
    main()

"""What coding a gradient and following it by codebooks take, by the kernels of numpy and by the compiled ones.

``python bench/gradient_kernels.py [--models A,B] [--data DIR] [--steps 20] [--repeats 100] [--out FILE]``: the
in-process trainer (trainer.py) makes so many steps on batches of 32, in one thread, by `sgq` and `dct`. Of the last
gradient and feature everything below is then timed, both kernels in turn, as CPU time of the process. ``--show FILE``
prints the table of such a file.

=======  ====================================================================================  ===================
part     what is timed                                                                         beside
=======  ====================================================================================  ===================
send     the server's: the gradient to bytes, and how far what arrives is from it               the back half
pack     the bytes alone                                                                       the back half
measure  the error of the front half's gradient, which a bound asks for at every fourth step   the back half
unpack   the device's: bytes to the gradient                                                   the front half
follow   the device's: the codebooks follow the feature                                        the front half
=======  ====================================================================================  ===================

The back half is its forward and backward pass in PyTorch, the front half the deployed one in ONNX Runtime.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from deployed import quantise_stage
from threadpoolctl import threadpool_limits
from timing import alternate, quartiles
from torch.nn.functional import cross_entropy
from trainer import Plan, Trainer

from edgekit.codecs.codebook import OnlineCodebook
from edgekit.codecs.entropy import kernels
from edgekit.codecs.gradients.dct import DCT
from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.export.fold import fold_norms
from edgekit.server.bound import error_of

#: Those of the accuracy table.
CUTS = {"mobilenet_v1": "blocks.4", "vgg11_thin": "features.10"}
CODEC = {"groups": 8, "bits": 5, "coding": "context"}
BATCH = 32
#: Which half each part is beside.
PARTS = {"send": "back", "pack": "back", "measure": "back", "unpack": "front", "follow": "front"}


def parts(
    codec: DCT, gradient: np.ndarray, payload: bytes, feature: np.ndarray, follow: Callable[[], None]
) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    return {
        "measure": lambda: error_of(gradient, codec.unpack(payload, gradient.shape, None), feature),
        "send": lambda: codec.send(gradient, None, rng),
        "pack": lambda: codec.pack(gradient, None, rng),
        "unpack": lambda: codec.unpack(payload, gradient.shape, None),
        "follow": follow,
    }


def by(kernel: str, function: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        with kernels.using(kernel):
            function()

    return run


def bench(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of one model."""
    images = options.steps * BATCH
    dataset = registry.load("cifar10" if options.data else "digits", options.data, images, 0)
    training = Trainer(
        Plan(model, CUTS[model], "sgq", CODEC, "dct", 0, 1, BATCH, 0.02), dataset, np.arange(images), lambda line: None
    )
    with (
        mock.patch.object(DCT, "send", autospec=True, side_effect=DCT.send) as sent,
        mock.patch.object(OnlineCodebook, "update", autospec=True, side_effect=OnlineCodebook.update) as followed,
    ):
        training.run()
    codec, gradient, *_ = sent.call_args.args
    book, feature, codes = followed.call_args.args
    payloads = []
    for kernel in kernels.NAMES:
        with kernels.using(kernel):
            payloads.append(codec.pack(gradient, None, np.random.default_rng(0)))
    if payloads[0] != payloads[1]:
        raise AssertionError(f"{model}: the two kernels give other bytes")
    pixels = training.data.test_images[:BATCH].astype(np.float32) / 255
    leaf = torch.from_numpy(np.ascontiguousarray(feature)).requires_grad_()
    labels = torch.zeros(BATCH, dtype=torch.long)
    timed = {
        "front": quantise_stage(fold_norms(training.front.module)[0], pixels, feature_codec("raw", {}), {}),
        "back": lambda: cross_entropy(training.back(leaf), labels).backward(),  # type: ignore[no-untyped-call]
    }
    each = parts(codec, gradient, payloads[0], feature, lambda: book.update(feature, codes))
    for kernel in kernels.NAMES:
        timed |= {f"{kernel}.{name}": by(kernel, function) for name, function in each.items()}
    ms = alternate(timed, options.repeats, time.process_time)
    told = {name: quartiles(ms[name], 3) for name in ("front", "back")}
    rows: dict[str, dict[str, Any]] = {}
    for name, half in PARTS.items():
        rows[name] = {kernel: quartiles(ms[f"{kernel}.{name}"], 3) for kernel in kernels.NAMES}
        ratios = ms[f"numpy.{name}"] / ms[f"native.{name}"]
        rows[name]["numpy_over_native"] = round(float(np.median(ratios)), 2)
        rows[name][f"share_of_{half}"] = round(float(np.median(ms[f"native.{name}"] / ms[half])), 4)
    return {
        "model": model, "cut": CUTS[model], "feature": list(training.shape), "bytes": len(payloads[0]), **told,
        "parts": rows,
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a line for each part of every run."""
    rows = []
    for run in runs:
        for name, half in PARTS.items():
            part = run["parts"][name]
            cells = [run["model"], name, *(f"{part[kernel]['median_ms']:.2f}" for kernel in ("numpy", "native"))]
            cells += [f"{part['numpy_over_native']:.1f}", f"{run[half]['median_ms']:.1f}"]
            rows.append([*cells, f"{100 * part[f'share_of_{half}']:.1f} %"])
    return markdown.table(("model", "part", "numpy, ms", "compiled, ms", "times", "half, ms", "share"), rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=",".join(CUTS))
    arguments.add("CIFAR-10, binary version; else digits", data=None)
    arguments.add("of training, before the times", steps=20)
    arguments.add("of everything that is timed", repeats=100)
    options = arguments.parse_or_show(lambda made: table(made["runs"]))
    torch.set_num_threads(1)
    with threadpool_limits(1):
        runs = [bench(model, options) for model in options.models.split(",")]
    made = {**record.head("torch", "numpy", "onnxruntime"), "batch": BATCH, "codec": CODEC, "runs": runs}
    sys.stderr.write(table(runs) + "\n")
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

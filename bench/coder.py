"""What the entropy coder takes while a network trains: its time, and its bytes beside its own model's entropy.

``python bench/coder.py [--models A,B] [--codecs METHOD;METHOD] [--data DIR] [--out FILE]``: the in-process trainer
(trainer.py) on batches of 32, one thread. At every batch the deployed front half runs too, in ONNX Runtime and without
a codec: what coding takes is told as a share of that, the median over an epoch's batches, beside medians and quartiles
of the process's CPU time. ``--show FILE`` prints the table of such a file.

========  ==============================================================================================================
stage     what is timed
========  ==============================================================================================================
pack      the device's: indices to bytes
unpack    the server's: bytes to indices
absorb    `update`, the device's, when the gradient is there: the tables learn
========  ==============================================================================================================

"% > model" is how far a feature's bytes, heads and images' numbers among them, lie above the entropy; "% coded",
without the numbers, which no model is asked about.
"""

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
import trainer
from deployed import quantise_stage
from entropy import model_bits
from record import finish
from threadpoolctl import threadpool_limits

from edgekit.codecs.base import Arrays, FeatureStream
from edgekit.codecs.entropy.temporal import write_numbers
from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.export.fold import fold_norms
from edgekit.measure.methods import parse

#: Those of the accuracy table.
CUTS = {"mobilenet_v1": "blocks.4", "vgg11_thin": "features.10"}
CODECS = "sgq:groups=8,bits=4,coding=context+none;sgq:groups=8,bits=4,coding=temporal+none"
BATCH = 32
#: "absorb" is `update`, under the name that records have.
STAGES = ("front", "pack", "unpack", "absorb")


class Timed(FeatureStream):
    """An end of a line, `stream`, which is timed. What it took comes into `seen`, by stage, in milliseconds.

    Where it packs, `front` runs as well, and "bytes", "numbers" (bytes of images' numbers) and "bits" (by the model)
    are counted.
    """

    def __init__(self, stream: FeatureStream, front: Callable[[], object]) -> None:
        super().__init__(stream.codec)
        self.stream = stream
        self.front = front
        self.seen: dict[str, list[float]] = defaultdict(list)

    def pack(self, codes: Arrays, images: np.ndarray | None = None) -> bytes:
        if images is None:  # an evaluation
            return self.stream.pack(codes)
        self._time("front", self.front)
        payload: bytes = self._time("pack", lambda: self.stream.pack(codes, images))
        self.seen["bytes"].append(len(payload))
        remembers = getattr(self.codec, "coding", "") == "temporal"
        self.seen["numbers"].append(len(write_numbers(images)) if remembers else 0)
        self.seen["bits"].append(model_bits(self.stream, codes, images))
        return payload

    def unpack(self, payload: bytes, shape: Sequence[int]) -> tuple[Arrays, np.ndarray | None]:
        arrived: tuple[Arrays, np.ndarray | None] = self._time("unpack", lambda: self.stream.unpack(payload, shape))
        return arrived

    def update(self, codes: Arrays, images: np.ndarray | None = None) -> None:
        self._time("absorb", lambda: self.stream.update(codes, images))

    def reset(self, in_flight: int = 0) -> None:
        self.stream.reset(in_flight)

    def _time(self, stage: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        self.seen[stage].append(1e3 * (time.process_time() - start))
        return result


def row(line: dict[str, Any], seen: dict[str, list[float]]) -> dict[str, Any]:
    """Of one epoch."""
    told: dict[str, Any] = {name: line[name] for name in ("epoch", "loss", "train_accuracy")}
    front = np.array(seen["front"])
    for stage in STAGES:
        low, median, high = np.quantile(seen[stage], (0.25, 0.5, 0.75)).round(3).tolist()
        share = round(float(np.median(seen[stage] / front)), 4)
        told[stage] = {"median_ms": median, "quartile1_ms": low, "quartile3_ms": high, "share_of_front": share}
    size, numbers, bits = (sum(seen[name]) for name in ("bytes", "numbers", "bits"))
    told["bytes_per_image"] = round(size / len(seen["bytes"]) / BATCH, 2)
    told["model_bytes_per_image"] = round(bits / 8 / len(seen["bytes"]) / BATCH, 2)
    told["above_model"] = round(8 * size / bits - 1, 4)
    told["coded_above_model"] = round(8 * (size - numbers) / bits - 1, 4)
    return told


def bench(model: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of one model and codec."""
    dataset = registry.load("cifar10" if options.data else "digits", options.data, options.limit, 0)
    parsed = parse(method, {})
    plan = trainer.Plan(
        model, CUTS[model], parsed.codec, parsed.config, parsed.gradient, 0, options.epochs, BATCH, options.lr,
        weight_decay=5e-4, augment=False, mixed=False, every=options.epochs,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []

    def on_epoch(line: dict[str, Any]) -> None:
        # What was unpacked after the batches of the epoch is of its evaluation.
        unpacked = receiver.seen["unpack"][: len(sender.seen["pack"])]
        rows.append(row(line, {**sender.seen, "unpack": unpacked}))
        sender.seen.clear()
        receiver.seen.clear()
        sys.stderr.write(f"{model} {method}: epoch {line['epoch']} of {options.epochs}, loss {line['loss']:.3f}\n")

    training = trainer.Trainer(plan, dataset, np.arange(len(dataset.train_labels)), on_epoch)
    images = training.test.images[:BATCH].astype(np.float32) / 255
    front = quantise_stage(fold_norms(training.front.module)[0], images, feature_codec("raw", {}), {})
    sender, receiver = (Timed(training.codec.stream(), front) for _ in range(2))
    # The device asks for its end first, at hello, and the server then for its own.
    ends = iter((sender, receiver))
    training.codec.stream = lambda: next(ends)  # type: ignore[method-assign]
    training.run()
    return {"model": model, "cut": CUTS[model], "feature": list(training.shape), "method": method, "epochs": rows}


def table(record: dict[str, Any]) -> str:
    """Markdown: the first, the middle and the last epoch of every run, stages as shares of the front half's time."""
    heads = ("model", "codec", "epoch", "B/image", "% > model", "% coded", "front, ms", *STAGES[1:])
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for run in record["runs"]:
        epochs = run["epochs"]
        for told in (epochs[i] for i in sorted({0, len(epochs) // 2 - 1, len(epochs) - 1}) if i >= 0):
            cells = [run["model"], run["method"].removesuffix("+none"), str(told["epoch"])]
            cells += [f"{told['bytes_per_image']:.1f}"]
            cells += [f"{100 * told[name]:.2f}" for name in ("above_model", "coded_above_model")]
            cells += [f"{told['front']['median_ms']:.1f}"]
            cells += [f"{100 * told[stage]['share_of_front']:.0f} %" for stage in STAGES[1:]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(CUTS))
    parser.add_argument("--codecs", default=CODECS, help="methods as of accuracy.py that code entropy, separated by ;")
    parser.add_argument("--data", metavar="DIR", help="CIFAR-10, binary version; else digits")
    parser.add_argument("--limit", type=int, default=2000, help="training images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--out", metavar="FILE")
    parser.add_argument("--show", metavar="FILE", help="train nothing; print the table of what --out wrote")
    options = parser.parse_args()
    if options.show:
        with open(options.show, encoding="utf-8") as file:
            sys.stdout.write(table(json.load(file)) + "\n")
        return
    torch.set_num_threads(1)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    with threadpool_limits(1):
        models, codecs = options.models.split(","), options.codecs.split(";")
        runs = [bench(model, codec, options) for model in models for codec in codecs]
    record = {
        "command": ["python", *sys.argv],
        "versions": {**versions, "onnxruntime": onnxruntime.__version__},
        "images": "cifar10" if options.data else "digits",
        "batch": BATCH,
        "runs": runs,
    }
    sys.stderr.write(table(record) + "\n")
    finish(record, options.out)


if __name__ == "__main__":
    main()

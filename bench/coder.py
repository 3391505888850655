"""What the entropy coder takes while a network trains: its time, and its bytes beside its own model's entropy.

``python bench/coder.py [--models A,B] [--codecs METHOD;METHOD] [--data DIR] [--out FILE]``: the in-process trainer
(trainer.py) on batches of 32, one thread. Each batch is coded by the compiled kernels and then by those of numpy, whose
bytes have to be the same. At every batch the deployed front half runs too, in ONNX Runtime and without a codec: what
coding takes is told as a share of that, the median over an epoch's batches, beside medians and quartiles of the
process's CPU time. ``--show FILE`` prints the table of such a file.

========  ==============================================================================================================
stage     what is timed
========  ==============================================================================================================
pack      the device's: indices to bytes
unpack    the server's: bytes to indices
absorb    `update`, the device's, when the gradient is there: the tables learn
========  ==============================================================================================================

A stage has two columns, compiled kernels and numpy. "M/s" are the millions of indices that the compiled kernels pack
or unpack in a second. "% > model" is how far a feature's bytes, heads and images' numbers among them, lie above the
entropy; "% coded", without the numbers, which no model is asked about.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from deployed import quantise_stage
from entropy import model_bits
from threadpoolctl import threadpool_limits
from timing import quartiles
from trainer import Plan, Trainer

from edgekit.codecs.base import Arrays, FeatureCodec, FeatureStream
from edgekit.codecs.entropy import kernels
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
STAGES = ("pack", "unpack", "absorb")


class Timed(FeatureStream):
    """An end of a line with a stream for each kind of kernels, which are timed.

    What they took comes into `seen`, by stage and kind ("pack native"), in milliseconds. Where it packs, `front` runs
    as well, and "indices", "bytes", "numbers" (bytes of images' numbers) and "bits" (by the model) are counted.
    """

    def __init__(self, codec: FeatureCodec, front: Callable[[], object]) -> None:
        super().__init__(codec)
        self.streams = {name: codec.stream() for name in kernels.NAMES}
        self.front = front
        self.seen: dict[str, list[float]] = defaultdict(list)

    def pack(self, codes: Arrays, images: np.ndarray | None = None) -> bytes:
        if images is None:  # an evaluation
            return self.streams["native"].pack(codes)
        self._time("front", self.front)
        payload: bytes = self._each("pack", lambda stream: stream.pack(codes, images))
        remembers = getattr(self.codec, "coding", "") == "temporal"
        bits = model_bits(self.streams["native"], codes, images)
        counted = (codes["codes"].size, len(payload), len(write_numbers(images)) if remembers else 0, bits)
        for name, number in zip(("indices", "bytes", "numbers", "bits"), counted, strict=True):
            self.seen[name].append(number)
        return payload

    def unpack(self, payload: bytes, shape: Sequence[int]) -> tuple[Arrays, np.ndarray | None]:
        arrived: tuple[Arrays, np.ndarray | None] = self._each("unpack", lambda stream: stream.unpack(payload, shape))
        return arrived

    def update(self, codes: Arrays, images: np.ndarray | None = None) -> None:
        self._each("absorb", lambda stream: stream.update(codes, images))

    def reset(self, in_flight: int = 0) -> None:
        for stream in self.streams.values():
            stream.reset(in_flight)

    def _each(self, stage: str, function: Callable[[FeatureStream], Any]) -> Any:
        """What `function` gives for the stream of the compiled kernels; that of numpy's has to give the same."""
        results = []
        for name, stream in self.streams.items():
            with kernels.using(name):
                results.append(self._time(f"{stage} {name}", partial(function, stream)))
        np.testing.assert_equal(*results)
        return results[0]

    def _time(self, stage: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        self.seen[stage].append(1e3 * (time.process_time() - start))
        return result


def row(line: dict[str, Any], seen: dict[str, list[float]]) -> dict[str, Any]:
    """Of one epoch."""
    told: dict[str, Any] = {name: line[name] for name in ("epoch", "loss", "train_accuracy")}
    front, indices = np.array(seen["front"]), np.array(seen["indices"])
    told["front"] = quartiles(front, 3)
    for stage in STAGES:
        told[stage] = {}
        for name in kernels.NAMES:
            ms = np.array(seen[f"{stage} {name}"])
            share, rate = float(np.median(ms / front)), float(np.median(indices / ms)) / 1e3
            told[stage][name] = {**quartiles(ms, 3), "share_of_front": round(share, 4), "m_per_s": round(rate, 2)}
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
    plan = Plan(
        model, CUTS[model], parsed.codec, parsed.config, parsed.gradient, 0, options.epochs, BATCH, options.lr,
        every=options.epochs,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []

    def on_epoch(line: dict[str, Any]) -> None:
        # What was unpacked after the batches of the epoch is of its evaluation.
        batches = len(sender.seen["front"])
        unpacked = {name: ms[:batches] for name, ms in receiver.seen.items() if name.startswith("unpack")}
        rows.append(row(line, {**sender.seen, **unpacked}))
        sender.seen.clear()
        receiver.seen.clear()
        sys.stderr.write(f"{model} {method}: epoch {line['epoch']} of {options.epochs}, loss {line['loss']:.3f}\n")

    training = Trainer(plan, dataset, np.arange(len(dataset.train_labels)), on_epoch)
    images = training.data.test_images[:BATCH].astype(np.float32) / 255
    front = quantise_stage(fold_norms(training.front.module)[0], images, feature_codec("raw", {}), {})
    sender, receiver = (Timed(training.codec, front) for _ in range(2))
    # The device asks for its end first, at hello, and the server then for its own.
    ends = iter((sender, receiver))
    training.codec.stream = lambda: next(ends)  # type: ignore[method-assign]
    training.run()
    return {"model": model, "cut": CUTS[model], "feature": list(training.shape), "method": method, "epochs": rows}


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: the first, the middle and the last epoch of every run, stages as shares of the front half's time."""
    rows = []
    for run in runs:
        epochs = run["epochs"]
        for told in (epochs[i] for i in sorted({0, len(epochs) // 2 - 1, len(epochs) - 1}) if i >= 0):
            cells = [run["model"], run["method"].removesuffix("+none"), str(told["epoch"])]
            cells += [f"{told['bytes_per_image']:.1f}"]
            cells += [f"{100 * told[name]:.2f}" for name in ("above_model", "coded_above_model")]
            cells += [f"{told['front']['median_ms']:.1f}"]
            for stage in STAGES:
                cells += [f"{100 * told[stage][name]['share_of_front']:.1f} %" for name in kernels.NAMES]
            cells += [f"{told[stage]['native']['m_per_s']:.0f}" for stage in STAGES[:2]]
            rows.append(cells)
    columns = [column for stage in STAGES for column in (stage, f"{stage}, numpy")]
    rates = [f"{stage}, M/s" for stage in STAGES[:2]]
    return markdown.table(
        ("model", "codec", "epoch", "B/image", "% > model", "% coded", "front, ms", *columns, *rates), rows
    )


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=",".join(CUTS))
    arguments.add("methods as of accuracy.py that code entropy, separated by ;", codecs=CODECS)
    arguments.add("CIFAR-10, binary version; else digits", data=None)
    arguments.add(limit=2000, epochs=8, lr=0.02)
    options = arguments.parse_or_show(lambda made: table(made["runs"]))
    torch.set_num_threads(1)
    with threadpool_limits(1):
        models, codecs = options.models.split(","), options.codecs.split(";")
        runs = [bench(model, codec, options) for model in models for codec in codecs]
    made = {
        **record.head("torch", "numpy", "onnxruntime"),
        "images": "cifar10" if options.data else "digits",
        "batch": BATCH,
        "runs": runs,
    }
    sys.stderr.write(table(runs) + "\n")
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

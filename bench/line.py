"""The whole line on one machine against plain PyTorch: images/s of `edgekit serve` and `edgekit run`, loopback between.

``python bench/line.py [--devices 1,2] [--in-flight 1,2] [--out FILE]``: one network, batches of the same size, real
processes of one thread each. A plain PyTorch loop trains the whole network in one process, as one usually writes it,
and with tensors in `channels_last`, which its convolutions prefer; then the line does, with so many devices and so many
batches in flight; and all of it again, `--repeats` times. Images/s are those of all epochs but the first, with rounds
between devices and without tests. Ratios are to the first PyTorch loop of the same turn.

"encode_of_compute" is what a device spends on coding, in both directions, beside what its engine and optimiser take.
``--show FILE`` prints the table of such a file.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from bundles import exported
from torch.nn.functional import cross_entropy

from edgekit.data import images, registry
from edgekit.export.models.registry import build
from edgekit.export.named import default_shape
from edgekit.launch.flags import as_flags
from edgekit.launch.processes import Children, Event
from edgekit.machine import describe
from edgekit.measure.methods import parse
from edgekit.runtime.front import normalise

#: Epochs that are not counted: engines and allocators warm up.
WARM_UP = 1
SHARED = ("model", "cut", "dataset", "limit", "codec", "batch", "epochs", "lr")
HEADS = ("", "images/s", "to PyTorch", "coding / computing", "accuracy, %")
PLAIN = {"PyTorch": "contiguous_format", "PyTorch, channels last": "channels_last"}


def plain(options: argparse.Namespace) -> None:
    """The PyTorch loop, in a process of its own; tells an "epoch" event after each."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = registry.load(options.dataset, options.data, options.limit, 0)
    shape = default_shape(dataset)
    data = images.fit(dataset, shape)
    mean, std = (np.array(values, dtype=np.float32) for values in (data.mean, data.std))
    layout = getattr(torch, options.plain)
    model = build(options.model, shape, len(data.classes), 0).train()
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9, weight_decay=5e-4)
    rng, labels = np.random.default_rng(0), torch.from_numpy(data.train_labels.astype(np.int64))
    steps = -(-len(labels) // options.batch)
    for _ in range(options.epochs):
        start = time.perf_counter()
        for batch in np.array_split(rng.permutation(len(labels)), steps):
            image = torch.from_numpy(normalise(data.train_images[batch], mean, std))
            loss = cross_entropy(model(image.contiguous(memory_format=layout)), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        rate = len(labels) / (time.perf_counter() - start)
        sys.stdout.write(json.dumps({"event": "epoch", "images_per_s": rate, "loss": loss.item()}) + "\n")


def plain_cell(layout: str) -> dict[str, float]:
    """Images/s of the PyTorch loop, with tensors in `layout`."""
    with Children([sys.executable, *sys.argv, "--plain", layout]) as children:
        children.start("plain", [])
        return {"images_per_s": warm_rate(event["images_per_s"] for _, event in children.events())}


def line_cell(bundle: str, gradient: str, devices: int, in_flight: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one training with `devices` devices."""
    epochs: dict[str, list[float]] = {}
    done: list[Event] = []
    shared = {name: getattr(options, name) for name in ("dataset", "data", "limit", "batch", "epochs")}
    with Children() as children:
        told = as_flags({"listen": "127.0.0.1:0", "devices": devices, "lr": options.lr, "gradient_codec": gradient})
        children.start("server", ["serve", bundle, "--json", *told])
        for name, event in children.events():
            if event["event"] == "listening":
                server = f"127.0.0.1:{event['port']}"
                for index in range(devices):
                    share = f"{index}/{devices}"
                    flags = as_flags({**shared, "server": server, "in_flight": in_flight, "share": share,
                                      "test_share": share, "evaluate_every": options.epochs})  # fmt: skip
                    children.start(f"device-{index}", ["run", bundle, "--json", *flags])
            elif event["event"] == "epoch":
                epochs.setdefault(name, []).append(event["images_per_s"])
            elif event["event"] == "done":
                done.append(event)
    seconds = {key: sum(each["seconds"].get(key, 0.0) for each in done) for key in ("compute", "encode", "server")}
    tested = sum(sum(each["by_class"]["images"]) for each in done)
    return {
        "images_per_s": sum(warm_rate(rates) for rates in epochs.values()),
        "encode_of_compute": seconds["encode"] / seconds["compute"],
        "ms_per_image": {key: 1e3 * value / sum(each["images"] for each in done) for key, value in seconds.items()},
        "accuracy": 100.0 * sum(sum(each["by_class"]["correct"]) for each in done) / tested,
        "staleness": statistics.mean(each["staleness"] for each in done),
    }


def warm_rate(rates: Iterable[float]) -> float:
    """Images/s over all epochs of equally many images but the first, of which `rates` has one each."""
    return statistics.harmonic_mean(list(rates)[WARM_UP:])


def rows(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each method: medians over the repeats, and the range of the ratio."""
    base = {cell["repeat"]: cell["images_per_s"] for cell in cells if cell["method"] == "PyTorch"}
    found = []
    for method in dict.fromkeys(cell["method"] for cell in cells):
        same = [cell for cell in cells if cell["method"] == method]
        ratios = [cell["images_per_s"] / base[cell["repeat"]] for cell in same]
        row: dict[str, Any] = {"method": method}
        for key in ("images_per_s", "encode_of_compute", "accuracy", "staleness"):
            if key in same[0]:
                row[key] = statistics.median(cell[key] for cell in same)
        found.append({**row, "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}})
    return found


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    lines = []
    for row in made["results"]:
        ratio = "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["ratio"])
        coded, accuracy = (
            f"{row[key]:.{digits}f}" if key in row else ""
            for key, digits in (("encode_of_compute", 3), ("accuracy", 1))
        )
        lines.append((row["method"], f"{row['images_per_s']:.0f}", ratio, coded, accuracy))
    return markdown.table(HEADS, lines)


def compare(options: argparse.Namespace) -> None:
    """All cells in turn, and the record."""
    method = parse(options.codec)
    counts, depths = ([int(n) for n in text.split(",")] for text in (options.devices, options.in_flight))
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = exported(scratch, method, options)
        for repeat in range(options.repeats):
            jobs: dict[str, Callable[[], dict[str, Any]]] = {
                name: partial(plain_cell, layout) for name, layout in PLAIN.items()
            }
            for n, depth in itertools.product(counts, depths):
                name = f"{n} device{'s' * (n > 1)}, {depth} in flight"
                jobs[name] = partial(line_cell, bundle, method.gradient, n, depth, options)
            for name, job in jobs.items():
                cells.append({"repeat": repeat, "method": name, **job()})
                sys.stderr.write(f"{name}: {cells[-1]['images_per_s']:.1f} images/s\n")
    setting = {key: getattr(options, key) for key in SHARED}
    made = {
        **record.head("torch", "numpy", "onnxruntime"), "machine": describe(), **setting,
        "threads": 1, "results": rows(cells), "cells": cells,
    }  # fmt: skip
    record.finish(made, options.out)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(model="vgg11_thin", cut="features.10", dataset="digits", data=None, limit=None)
    arguments.add(codec="sgq:groups=8,bits=5,coding=context+dct", devices="1,2", in_flight="1,2", batch=32)
    arguments.add(epochs=3, lr=0.05, repeats=3)
    arguments.add(argparse.SUPPRESS, plain=None)
    options = arguments.parse_or_show(table)
    if options.plain:
        plain(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()

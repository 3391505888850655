"""One server against two ranks: the loss curves side by side, and images/s of both.

``python bench/ranks.py [--out FILE]``: the same training of `--devices` devices, once with one `edgekit serve` and once
with `--ranks` of them under torchrun, the devices spread over them; in turn, `--repeats` times, and all of that for
each method (a feature codec and a gradient). Real processes of one thread each, loopback between them.

The loss is the mean over the training images of all devices, epoch by epoch. "apart" is the largest relative distance
of the two curves. Training makes much of little: so there is a third curve, of one server with two threads, whose sums
are rounded otherwise too. Images/s are those of all epochs but the first, with rounds between devices, without tests.
Front halves, back halves and coding share the cores of one machine: two ranks are only faster where cores are idle.
``--show FILE`` prints the table of such a file.
"""

import argparse
import statistics
import sys
import tempfile
from typing import Any

import markdown
import record
from arguments import Arguments
from bundles import exported

from edgekit.launch.flags import as_flags
from edgekit.launch.processes import Children
from edgekit.machine import describe
from edgekit.measure.methods import parse

#: Epochs that are not counted: engines and allocators warm up.
WARM_UP = 1
SHARED = ("model", "cut", "dataset", "limit", "batch", "epochs", "lr", "devices", "ranks")
CURVES = ("one server", "ranks", "two threads")
HEADS = ("method", "epoch", "loss, one server", "two ranks", "one server, two threads")
SPEEDS = ("method", "images/s, one server", "two ranks", "ranks apart", "two threads apart")


def cell(bundle: str, gradient: str, ranks: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training, by so many server processes of `threads` threads: its losses, images/s, and joint steps."""
    losses: dict[int, list[float]] = {}
    rates: list[list[float]] = [[] for _ in range(options.devices)]
    ports: dict[int, int] = {}
    steps = 0
    command = [sys.executable, "-m", "edgekit"]
    if ranks > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [*launcher, "-m", "edgekit"]
    with Children() as children:
        told = as_flags({"listen": "127.0.0.1:0", "devices": options.devices, "lr": options.lr,
                         "gradient_codec": gradient, "server_threads": threads})  # fmt: skip
        children.start("server", ["serve", bundle, "--json", *told], command=command)
        for name, event in children.events():
            if event["event"] == "listening":
                ports[event.get("rank", 0)] = event["port"]
                if len(ports) < ranks:
                    continue
                shared = {key: getattr(options, key) for key in ("dataset", "data", "limit", "batch", "epochs")}
                for index in range(options.devices):
                    share, server = f"{index}/{options.devices}", f"127.0.0.1:{ports[index % ranks]}"
                    flags = {**shared, "server": server, "share": share, "test_share": share,
                             "evaluate_every": options.epochs}  # fmt: skip
                    children.start(str(index), ["run", bundle, "--json", *as_flags(flags)])
            elif event["event"] == "epoch":
                losses.setdefault(event["epoch"], []).append(event["loss"])
                rates[int(name)].append(event["images_per_s"])
            elif event["event"] == "ended" and not event.get("rank"):
                steps = event["steps"]
    return {
        # Shares are even.
        "losses": [statistics.mean(losses[epoch]) for epoch in sorted(losses)],
        "images_per_s": sum(statistics.harmonic_mean(each[WARM_UP:]) for each in rates),
        "steps": steps,
    }


def result(method: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What the trainings of `method` came to."""
    control = [each for each in cells if each["threads"] > 1]
    one, several = ([each for each in cells if (each["ranks"] > 1) == many and each not in control] for many in (0, 1))
    named = {"one server": one, "ranks": several, "two threads": control}
    curves = {name: each[0]["losses"] for name, each in named.items()}
    return {
        "method": method,
        "losses": curves,
        "apart": {name: apart(curves["one server"], curve) for name, curve in curves.items()},
        "repeats_bit_for_bit": all(each["losses"] == curves[name] for name, same in named.items() for each in same),
        "images_per_s": {name: [each["images_per_s"] for each in named[name]] for name in ("one server", "ranks")},
    }


def apart(curve: list[float], other: list[float]) -> float:
    """The largest relative distance of two curves."""
    return max(abs(a - b) / a for a, b in zip(curve, other, strict=True))


def table(made: dict[str, Any]) -> str:
    """The results of a record."""
    curves, speeds = [], []
    for row in made["results"]:
        for epoch, losses in enumerate(zip(*(row["losses"][name] for name in CURVES), strict=True), 1):
            curves.append((row["method"], str(epoch), *(f"{loss:.5f}" for loss in losses)))
        ranges = (f"{min(found):.0f} to {max(found):.0f}" for found in row["images_per_s"].values())
        speeds.append((row["method"], *ranges, *(f"{row['apart'][name]:.1e}" for name in CURVES[1:])))
    return markdown.table(HEADS, curves) + "\n\n" + markdown.table(SPEEDS, speeds)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(model="vgg11_thin", cut="features.3", dataset="digits", data=None, limit=None)
    arguments.add(methods="raw+none;sgq:groups=8,bits=4,coding=context+dct:bound=0.5", batch=32, epochs=3, lr=0.01)
    arguments.add(devices=4, ranks=2, repeats=2)
    options = arguments.parse_or_show(table)
    results, cells = [], []
    for text in options.methods.split(";"):
        method = parse(text)
        with tempfile.TemporaryDirectory() as scratch:
            bundle = exported(scratch, method, options)
            for repeat in range(options.repeats):
                # The control once, after all that is timed.
                last = repeat == options.repeats - 1
                for ranks, threads in ((1, 1), (options.ranks, 1), *([(1, 2)] if last else [])):
                    made = cell(bundle, method.gradient, ranks, threads, options)
                    cells.append({"method": text, "repeat": repeat, "ranks": ranks, "threads": threads, **made})
                    sys.stderr.write(f"{text}, {ranks}: {made['images_per_s']:.1f} images/s, {made['losses']}\n")
        results.append(result(text, [each for each in cells if each["method"] == text]))
    setting = {key: getattr(options, key) for key in SHARED}
    head = record.head("torch", "numpy", "onnxruntime")
    made = {**head, "machine": describe(), **setting, "results": results, "cells": cells}
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

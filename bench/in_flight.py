"""What batches in flight are worth, and cost: images/s, staleness and accuracy of `edgekit train` over a slow line.

``python bench/in_flight.py MODEL [--cut LAYER] --data DIR --link 10mbit+50ms [--out FILE]``: real processes, one
device, the depths in turn for every seed. A run that is in `--out` already is not made again.
"""

import argparse
import os
import statistics
import sys
from typing import Any

import record
from arguments import Arguments

from edgekit.export.settings import NamedData, NamedNetwork
from edgekit.launch.settings import Server, Training
from edgekit.launch.train import train
from edgekit.machine import describe

#: What a summary has of interest here.
KEPT = ("accuracy", "loss", "images_per_s", "staleness", "bytes_up_per_image", "bytes_down_per_image", "seconds")
AVERAGED = ("accuracy", "images_per_s", "staleness")


def run(depth: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What is kept of one run's summary."""
    summary = train(
        NamedNetwork(options.model, options.cut),
        data=NamedData(options.dataset, options.data, options.limit),
        codec=f"sgq:groups=8,bits=4,coding={options.coding}",
        training=Training(devices=1, epochs=options.epochs, in_flight=depth, link=options.link),
        server=Server(lr=options.lr, gradient_codec=options.gradient_codec),
        seed=seed,
    )
    return {"in_flight": depth, "seed": seed, **{key: summary[key] for key in KEPT}}


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of a record share."""
    shared = ("model", "cut", "dataset", "limit", "epochs", "lr", "link", "coding")
    return {**{key: getattr(options, key) for key in shared}, "calibrate": options.gradient_codec}


def means(depths: list[int], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each depth, over its seeds."""
    rows = []
    for depth in depths:
        same = [each for each in runs if each["in_flight"] == depth]
        if same:
            row = {
                key: statistics.mean(each[key] for each in same) for key in ("accuracy", "images_per_s", "staleness")
            }
            rows.append({"in_flight": depth, "seeds": [each["seed"] for each in same], **row})
    return rows


def main() -> None:
    arguments = Arguments(__doc__, "model")
    arguments.add(cut=None, dataset="cifar10", data=None, limit=4000, epochs=6, lr=0.02, link="10mbit+50ms")
    arguments.add(coding="context", gradient_codec="sparse-masked:step=4", depths="1,2,4", seeds="0,1", out=None)
    options = arguments.parse_args()
    runs: list[dict[str, Any]] = []
    if options.out and os.path.exists(options.out):
        kept = record.read(options.out)
        if kept["setting"] != setting(options):
            raise SystemExit(f"{options.out} has runs of {kept['setting']}: choose another --out")
        runs = kept["runs"]
    done = {(each["in_flight"], each["seed"]) for each in runs}
    depths = [int(depth) for depth in options.depths.split(",")]
    wanted = [(depth, int(seed)) for seed in options.seeds.split(",") for depth in depths]
    for depth, seed in wanted:
        if (depth, seed) in done:
            continue
        runs.append(run(depth, seed, options))
        last = runs[-1]
        sys.stderr.write(f"{depth} in flight: {last['accuracy']:.2f} %, {last['images_per_s']:.1f} images/s\n")
        head = {**record.head(), "setting": setting(options), "machine": describe()}
        record.finish({**head, "means": means(depths, runs), "runs": runs}, options.out)


if __name__ == "__main__":
    main()

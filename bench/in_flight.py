"""What batches in flight are worth, and cost: images/s, staleness and accuracy of `edgekit train` over a slow line.

``python bench/in_flight.py MODEL [--cut LAYER] --data DIR --link 10mbit+50ms [--out FILE]``: real processes, one
device, the depths in turn for every seed. A run that is in `--out` already is not made again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from edgekit.machine import describe

#: What a summary has of interest here.
KEPT = ("accuracy", "loss", "images_per_s", "staleness", "bytes_up_per_image", "bytes_down_per_image", "seconds")


def train(depth: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The summary of one run."""
    flags = {
        "cut": options.cut, "dataset": options.dataset, "data": options.data, "limit": options.limit,
        "epochs": options.epochs, "lr": options.lr, "link": options.link, "in-flight": depth, "seed": seed,
        "devices": 1, "calibrate": options.gradient_codec, "coding": options.coding,
    }  # fmt: skip
    given = [part for key, value in flags.items() if value is not None for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "edgekit", "train", options.model, "--json", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    summary = json.loads(done.stdout)
    return {"in_flight": depth, "seed": seed, **{key: summary[key] for key in KEPT}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cut")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--link", default="10mbit+50ms")
    parser.add_argument("--coding", default="context")
    parser.add_argument("--gradient-codec", default="sparse-masked:step=4")
    parser.add_argument("--depths", default="1,2,4")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if options.out and os.path.exists(options.out):
        with open(options.out, encoding="utf-8") as file:
            kept = json.load(file)
        if kept["setting"] != setting(options):
            raise SystemExit(f"{options.out} has runs of {kept['setting']}: choose another --out")
        runs = kept["runs"]
    depths = [int(depth) for depth in options.depths.split(",")]
    for seed in map(int, options.seeds.split(",")):
        for depth in depths:
            if any((run["in_flight"], run["seed"]) == (depth, seed) for run in runs):
                continue
            runs.append(train(depth, seed, options))
            last = runs[-1]
            sys.stderr.write(f"{depth} in flight: {last['accuracy']:.2f} %, {last['images_per_s']:.1f} images/s\n")
            _write(options, depths, runs)


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of a record share."""
    shared = ("model", "cut", "dataset", "limit", "epochs", "lr", "link", "coding", "calibrate")
    return {key: getattr(options, key) for key in shared}


def _write(options: argparse.Namespace, depths: list[int], runs: list[dict[str, Any]]) -> None:
    table = []
    for depth in depths:
        same = [run for run in runs if run["in_flight"] == depth]
        if same:
            table.append({"in_flight": depth, "seeds": [run["seed"] for run in same]} | {
                key: statistics.mean(run[key] for run in same) for key in ("accuracy", "images_per_s", "staleness")
            })  # fmt: skip
    command = ["python", *sys.argv]
    record = {"command": command, "setting": setting(options), "machine": describe(), "means": table, "runs": runs}
    text = json.dumps(record, indent=1) + "\n"
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()

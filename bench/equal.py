"""Is the in-process trainer (trainer.py) equal to the deployed line? Both train the same plan on digits.

``python bench/equal.py MODEL [--cut LAYER] [--codec sgq] [--epochs 3] [--json FILE]``: `edgekit train` with one device
process and a server process, and the trainer in float32 without augmentation, from the same weights, codebooks, images
and order. Their loss, accuracy and bytes an image are listed epoch by epoch. Rounding differs, and training amplifies
it, so later epochs are close, not equal.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import torch
from record import finish
from trainer import Plan, Trainer

from edgekit.cli.options import codec_config
from edgekit.data import registry
from edgekit.data.partition import shares

KEYS = ("loss", "accuracy", "bytes_up_per_image", "bytes_down_per_image")


def line(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Epochs of `edgekit train` with one device."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "edgekit", "train", options.model, "--devices", "1", "--dataset", "digits"),
            *("--codec", options.codec, "--groups", str(options.groups), "--epochs", str(options.epochs)),
            *("--gradient-codec", options.gradient, "--lr", str(options.lr), "--out", folder),
            *(("--cut", options.cut) if options.cut else ()),
            *(
                "--coding",
                options.coding,
                *(("--noise-filling", options.noise_filling) if options.noise_filling else ()),
            ),
        ]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        with open(os.path.join(folder, "record.jsonl"), encoding="utf-8") as file:
            events = [event for event in map(json.loads, file) if event["event"] == "epoch"]
    for event in events:
        for way in ("up", "down"):
            event[f"bytes_{way}_per_image"] = event[f"bytes_{way}"] / event["images"]
    return events


def in_process(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Epochs of the trainer."""
    torch.set_num_threads(1)
    dataset = registry.load("digits", None, None, 0)
    share = shares(dataset.train_labels, 1, "iid", 0)[0]
    codec = codec_config(options.codec, 4, options.groups, coding=options.coding)
    plan = Plan(
        options.model, options.cut, options.codec, codec, options.gradient,
        seed=0, epochs=options.epochs, batch=32, lr=options.lr, weight_decay=5e-4, augment=False, mixed=False, every=1,
        noise=options.noise_filling,
    )  # fmt: skip
    return Trainer(plan, dataset, share, lambda line: None).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cut")
    parser.add_argument("--codec", default="sgq")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--coding", default="packed")
    parser.add_argument("--noise-filling", metavar="SHARE")
    parser.add_argument("--gradient", default="none", help="policy of `edgekit train --gradient-codec`")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    deployed, trained = line(options), in_process(options)
    rows = [
        {"epoch": i, **{key: {"line": a[key], "in process": b[key]} for key in KEYS}}
        for i, (a, b) in enumerate(zip(deployed, trained, strict=True), 1)
    ]
    finish({"command": ["python", *sys.argv], "model": options.model, "epochs": rows}, options.json)


if __name__ == "__main__":
    main()

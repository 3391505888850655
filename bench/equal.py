"""Is the in-process trainer (trainer.py) equal to the deployed line? Both train the same plan on digits.

``python bench/equal.py MODEL [--cut LAYER] [--codec sgq] [--epochs 3] [--json FILE]``: `edgekit train` with one device
process and a server process, and the trainer in float32 without augmentation, from the same weights, codebooks, images
and order. Their loss, accuracy and bytes an image are listed epoch by epoch. Rounding differs, and training amplifies
it, so later epochs are close, not equal.
"""

import argparse
from typing import Any

import record
import torch
from arguments import Arguments
from trainer import Plan, Trainer

from edgekit.cli.options import codec_config
from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.data.partition import shares
from edgekit.export.settings import NamedNetwork
from edgekit.launch.settings import Server, Training
from edgekit.launch.train import train

KEYS = ("loss", "accuracy", "bytes_up_per_image", "bytes_down_per_image")


def line(options: argparse.Namespace, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Epochs of `edgekit train` with one device."""
    events: list[dict[str, Any]] = []
    train(
        NamedNetwork(options.model, options.cut),
        codec=feature_codec(options.codec, config),
        training=Training(devices=1, epochs=options.epochs),
        server=Server(lr=options.lr, gradient_codec=options.gradient, noise_filling=options.noise_filling),
        on_event=events.append,
    )
    epochs = [event for event in events if event["event"] == "epoch"]
    for event in epochs:
        for way in ("up", "down"):
            event[f"bytes_{way}_per_image"] = event[f"bytes_{way}"] / event["images"]
    return epochs


def in_process(options: argparse.Namespace, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Epochs of the trainer."""
    torch.set_num_threads(1)
    dataset = registry.load("digits", None, None, 0)
    share = shares(dataset.train_labels, 1, "iid", 0)[0]
    plan = Plan(
        options.model, options.cut, options.codec, config, options.gradient,
        seed=0, epochs=options.epochs, batch=32, lr=options.lr, every=1, noise_filling=options.noise_filling,
    )  # fmt: skip
    return Trainer(plan, dataset, share, lambda line: None).run()


def main() -> None:
    arguments = Arguments(__doc__, "model")
    arguments.add(cut=None, codec="sgq", groups=8, coding="packed", noise_filling=None)
    arguments.add("policy of `edgekit train --gradient-codec`", gradient="none")
    arguments.add(lr=0.05, epochs=3, json=None)
    options = arguments.parse_args()
    coding = options.coding if options.codec == "sgq" else None
    config = codec_config(options.codec, 4, options.groups, coding=coding)
    deployed, trained = line(options, config), in_process(options, config)
    rows = [
        {"epoch": i, **{key: {"line": a[key], "in process": b[key]} for key in KEYS}}
        for i, (a, b) in enumerate(zip(deployed, trained, strict=True), 1)
    ]
    record.finish({**record.head(), "model": options.model, "epochs": rows}, options.json)


if __name__ == "__main__":
    main()

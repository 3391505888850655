"""What the uplink of a short training consists of, by kind of message, and what it comes to.

\b
python bench/uplink.py --models vgg11_thin,mobilenet_v1 --seeds 1,2,3 --label now --out runs/uplink
python bench/uplink.py --show runs/before runs/now --json bench/results/uplink.json

Each run is `edgekit train MODEL --dataset digits --devices 2`: bench/fleet.py trains it in one process. --label names
the runs in the table, as the code that made them is not told apart otherwise. Runs that --out has are not made again.
"""

import argparse
import statistics
import sys
from typing import Any

import fleet
import markdown
import record
from arguments import Arguments

from edgekit.line.meter import TRAINING_KINDS

#: What the rows of a table have in common with the runs that they are of.
SETTING = ("model", "codec", "label", "devices", "epochs", "dataset")
HEADS = ("model", "codec", "run", "seeds", "up, B an image", "features", "codebooks", "rounds", "codebooks, share",
         "distortion", "accuracy")  # fmt: skip


def plans(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that `options` ask for."""
    return [
        {"model": model, "codec": codec, "label": options.label, "dataset": options.dataset, "limit": None,
         "partition": "iid", "devices": options.devices, "mode": "sync", "sync_every": "", "joint_batch": 0,
         "epochs": options.epochs, "batch": options.batch, "lr": options.lr, "every": 1000, "seed": seed}
        for seed in map(int, options.seeds.split(","))
        for codec in options.codecs.split(";")
        for model in options.models.split(",")
    ]  # fmt: skip


def rows(sources: list[str]) -> list[dict[str, Any]]:
    """One row for each setting, over its seeds, from folders of runs and files of rows."""
    made, found = fleet.runs_of(sources, SETTING)
    for runs in found:
        kinds = [f"up.{kind}" for kind in TRAINING_KINDS if f"up.{kind}" in runs[0]["bytes"]]
        made.append(
            {
                **{key: runs[0]["plan"][key] for key in SETTING},
                "commands": sorted({" ".join(each["command"]) for each in runs}),
                "seeds": [each["plan"]["seed"] for each in runs],
                "images": [each["images"] for each in runs],
                "bytes": {kind: [each["bytes"][kind] for each in runs] for kind in kinds},
                "distortion": [round(each["distortion"], 4) for each in runs],
                "accuracy": [round(each["accuracy"], 2) for each in runs],
            }
        )
    return sorted(made, key=lambda row: [str(row[key]) for key in SETTING])


def show(table: list[dict[str, Any]]) -> str:
    """`table` in Markdown: bytes of training frames for one training image, means over the seeds."""
    lines = []
    for row in table:
        sent = {kind: sum(each) / sum(row["images"]) for kind, each in row["bytes"].items()}
        total = sum(sent.values())
        shares = [
            book / sum(each) for book, *each in zip(row["bytes"]["up.codebook"], *row["bytes"].values(), strict=True)
        ]
        lines.append([
            row["model"], row["codec"], row["label"], str(len(row["seeds"])), f"{total:.1f}",
            *(f"{sent.get(kind, 0):.1f}" for kind in ("up.feature", "up.codebook", "up.update")),
            f"{100 * statistics.mean(shares):.1f} % ({100 * min(shares):.1f} to {100 * max(shares):.1f})",
            f"{statistics.mean(row['distortion']):.4f}",
            f"{statistics.mean(row['accuracy']):.2f} ({' / '.join(f'{each:.2f}' for each in row['accuracy'])})",
        ])  # fmt: skip
    return markdown.table(HEADS, lines)


def main() -> None:
    parser = Arguments(__doc__)
    parser.add("feature codecs, ';' between them", codecs="sgq:groups=8,bits=4;sgq:groups=8,bits=5,coding=context")
    parser.add(models="vgg11_thin,mobilenet_v1", seeds="1,2,3", label="now", dataset="digits", data=None)
    parser.add(devices=2, epochs=10, batch=32, lr=0.05, out=None, json=None)
    parser.add_argument("--show", nargs="+", metavar="FOLDER")
    options = parser.parse_args()
    if options.show:
        table = rows(options.show)
        if options.json:
            record.write({**record.head(), "rows": table}, options.json)
        sys.stdout.write(show(table) + "\n")
        return
    fleet.make_runs(plans(options), options.out, options.data)


if __name__ == "__main__":
    main()

"""Accuracy against bytes: one network, one dataset, many codecs and seeds.

\b
python bench/accuracy.py vgg11_thin --cut features.10 --data DIR --methods FP32,UQ-4,SGQ-4 --seeds 0,1,2 --out runs
python bench/accuracy.py --show bench/results/accuracy.json runs --json bench/results/accuracy.json --plot FILE

Runs that `--out` has already are not made again, so an interrupted bench goes on where it stopped. `--show` takes
folders of runs and what `--json` wrote; seeds of one method come together, whichever they lie in, a seed from where it
comes first. A method is a name of METHODS or
"codec:key=value,...+policy", for example "sgq:groups=4,bits=6,coding=context+sparse".
"""

import argparse
import glob
import hashlib
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accuracy_chart import draw
from trainer import Plan, Trainer

from edgekit.data import registry
from edgekit.measure.methods import parse

#: The methods of the paper's table at one cut, 4 bits, with an uncompressed gradient; and ours, both ways.
METHODS = {
    "FP32": "raw+none",
    "UQ-4": "uniform:bits=4+none",
    "PQ-4": "product:groups=8,bits=4+none",
    "CLIO": "slicing:bits=4+none",
    "Top-K": "topk:bits=4+none",
    "SGQ-4": "sgq:groups=8,bits=4+none",
    "SGQ-4 by significance": "sgq:groups=8,bits=4,grouping=significance+none",
}


#: What two rows must share to be compared.
SETTING = ("model", "cut", "dataset", "limit", "n_epochs", "batch", "lr", "weight_decay", "mixed", "augment")
#: What two rows must share besides to be one, of other seeds.
METHOD = ("method", "codec", "config", "gradient", "regroup", "front", "decay", "tolerance")
#: What `--only` looks at.
NAMED = ("model", "dataset", "cut", "n_epochs", "method")


def run(method: str, seed: int, options: argparse.Namespace) -> None:
    """Trains one method and seed; writes its record when it is done."""
    parsed = parse(method, METHODS)
    plan = Plan(
        options.model, options.cut, parsed.codec, parsed.config, parsed.gradient, seed, options.epochs, options.batch,
        options.lr, options.weight_decay, options.augment, options.mixed, regroup=options.regroup,
        front=not options.freeze_front, decay=options.decay, tolerance=options.tolerance,
        every=options.every, noise=options.noise_filling,
    )  # fmt: skip
    described = {"method": method, "dataset": options.dataset, "limit": options.limit, "plan": plan._asdict()}
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]
    path = os.path.join(options.out, f"{options.model}-{method.split(':')[0]}-{seed}-{name}.json")
    if os.path.exists(path):
        return
    dataset = registry.load(options.dataset, options.data, options.limit, 0)

    def show(line: dict[str, Any]) -> None:
        wanted = ("epoch", "loss", "accuracy", "deviation", "bytes_up_per_image", "bytes_down_per_image")
        shown = " ".join(f"{key} {line[key]:.4g}" for key in wanted if key in line)
        sys.stderr.write(f"{method} seed {seed}: {shown}\n")

    trainer = Trainer(plan, dataset, np.arange(len(dataset.train_labels)), show)
    record = {
        **described,
        "feature": list(trainer.shape),
        "formula_bytes_up": trainer.codec.formula_bits(trainer.shape) / 8,
        "command": ["python", *sys.argv],
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "epochs": trainer.run(),
    }
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(path + ".part", path)


def summarise(sources: list[str]) -> list[dict[str, Any]]:
    """One row per method, dataset and setting, over its seeds, of all that folders of runs and files of rows hold."""
    joined: dict[str, dict[str, Any]] = {}
    for source in sources:
        for row in _rows(source):
            key = json.dumps([row[name] for name in SETTING + METHOD], sort_keys=True)
            joined[key] = _joined(joined[key], row) if key in joined else row
    rows = list(joined.values())
    for row in rows:
        whole = [other for other in rows if other["method"] == "FP32" and other["front"]]
        fp32 = [other for other in whole if _setting(other) == _setting(row)]
        if fp32 and row["front"]:
            both = row["bytes_up"] + row["bytes_down"]
            row["below_fp32"] = round(fp32[0]["accuracy"] - row["accuracy"], 2)
            row["ratio_up"] = round(fp32[0]["bytes_up"] / row["bytes_up"], 1)
            row["ratio_both"] = round((fp32[0]["bytes_up"] + fp32[0]["bytes_down"]) / both, 1)
        uniform = [other for other in rows if other["method"] == "UQ-4" and _setting(other) == _setting(row)]
        if uniform:
            row["ratio_uq"] = round(uniform[0]["bytes_up"] / row["bytes_up"], 1)
    return sorted(rows, key=lambda row: (row["model"], row["dataset"], -row["bytes_up"] - row["bytes_down"]))


def _rows(source: str) -> list[dict[str, Any]]:
    """The rows of a file, or one for each run of a folder."""
    if os.path.isfile(source):
        with open(source, encoding="utf-8") as file:
            rows: list[dict[str, Any]] = json.load(file)
        return rows
    paths = sorted(glob.glob(os.path.join(source, "*.json")))
    if not paths:
        sys.exit(f"{source}: neither a file of rows nor a folder with runs")
    records = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            records.append(json.load(file))
    return [_row(record) for record in sorted(records, key=lambda record: int(record["plan"]["seed"]))]


def _joined(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`row` with the seeds of `other` that it lacks; curve, versions and command stay those of its first seed."""
    new = [i for i, seed in enumerate(other["seeds"]) if seed not in row["seeds"]]
    for seed, accuracy in zip(other["seeds"], other["accuracies"], strict=True):
        if accuracy != dict(zip(row["seeds"], row["accuracies"], strict=True)).get(seed, accuracy):
            sys.stderr.write(f"{row['method']} seed {seed}: {accuracy} left out, an earlier source has another\n")
    if not new:
        return row
    seeds, accuracies = (row[name] + [other[name][i] for i in new] for name in ("seeds", "accuracies"))
    means = {
        name: round((row[name] * len(row["seeds"]) + other[name] * len(new)) / len(seeds), 1)
        for name in ("bytes_up", "bytes_down")
    }
    told = {"accuracy": round(statistics.mean(accuracies), 2), "spread": round(max(accuracies) - min(accuracies), 2)}
    commands = row.get("further_commands", [])
    for command in (other["command"], *other.get("further_commands", [])):
        if command not in (row["command"], *commands):
            commands = [*commands, command]
    return {**row, "seeds": seeds, "accuracies": accuracies, **told, **means, "further_commands": commands}


def _setting(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in SETTING)


def _told(method: str, plan: dict[str, Any]) -> str:
    """`method` and what else sets it apart in a table."""
    share = {None: "", "lost": ", noise filling"}.get(plan["noise"], f", noise {plan['noise']}")
    return method + share + ("" if plan["front"] else ", front half frozen")


def _row(record: dict[str, Any]) -> dict[str, Any]:
    plan, last = record["plan"], record["epochs"][-1]
    return {
        "model": plan["model"],
        "cut": plan["cut"],
        "feature": record["feature"],
        "dataset": record["dataset"],
        "limit": record["limit"],
        "n_epochs": plan["epochs"],
        "batch": plan["batch"],
        "lr": plan["lr"],
        "mixed": plan["mixed"],
        "augment": plan["augment"],
        "weight_decay": plan["weight_decay"],
        "method": _told(record["method"], plan),
        "codec": plan["codec"],
        "config": plan["config"],
        "gradient": plan["gradient"],
        "regroup": plan["regroup"],
        "front": plan["front"],
        "decay": plan["decay"],
        "tolerance": plan["tolerance"],
        "seeds": [plan["seed"]],
        "accuracy": round(last["accuracy"], 2),
        "accuracies": [last["accuracy"]],
        "spread": 0.0,
        "bytes_up": round(last["bytes_up_per_image"], 1),
        "bytes_down": round(last["bytes_down_per_image"], 1),
        "formula_bytes_up": record["formula_bytes_up"],
        "curve": [
            [line["images"], line["accuracy"], round(line["loss"], 4)]
            for line in record["epochs"]
            if "accuracy" in line
        ],
        "versions": record["versions"],
        "command": record["command"],
    }


#: The table's columns.
HEADS = (
    "model", "data", "cut", "epochs", "method", "gradient", "seeds", "accuracy", "below FP32", "B up", "B down", "up",
    "up, to UQ-4", "both ways",
)  # fmt: skip
BRIEF = ("model", "method", "gradient", "seeds", "accuracy", "below FP32", "B up", "B down", "both ways")


def table(rows: list[dict[str, Any]], heads: Sequence[str] = HEADS) -> str:
    """`rows` as Markdown, the columns of `heads`; bytes are measured at the frame, per training image."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [
            row["model"],
            row["dataset"],
            row["cut"] or "default",
            str(row["n_epochs"]),
            row["method"].replace("+" + row["gradient"], ""),
            row["gradient"],
            str(len(row["seeds"])),
            f"{row['accuracy']:.2f} ± {row['spread'] / 2:.2f}" if len(row["seeds"]) > 1 else f"{row['accuracy']:.2f}",
            f"{row['below_fp32']:+.2f}" if "below_fp32" in row else "",
            f"{row['bytes_up']:,.0f}",
            f"{row['bytes_down']:,.0f}",
            f"{row['ratio_up']}x" if "ratio_up" in row else "",
            f"{row['ratio_uq']}x" if "ratio_uq" in row else "",
            f"{row['ratio_both']}x" if "ratio_both" in row else "",
        ]
        named = dict(zip(HEADS, cells, strict=True))
        lines.append(f"| {' | '.join(named[head] for head in heads)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--cut")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="training images, balanced over the classes")
    parser.add_argument("--methods", default="FP32,UQ-4,SGQ-4", help="separated by commas, or by ; where they hold one")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--augment", action="store_true", help="random crops and flips")
    parser.add_argument("--mixed", action="store_true", help="networks compute in bfloat16 (see bfloat16.py)")
    parser.add_argument("--regroup", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--decay", type=float, default=0.9, help="of the codebooks' moving averages")
    parser.add_argument("--tolerance", type=float, default=0.1, help="codewords that moved further are sent")
    parser.add_argument("--every", type=int, default=2, metavar="EPOCHS", help="from one evaluation to the next")
    parser.add_argument("--freeze-front", action="store_true", help="do not train the front half")
    parser.add_argument("--noise-filling", metavar="SHARE", help="as of `edgekit train`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", metavar="DIR", default="runs")
    parser.add_argument("--show", metavar="PATH", nargs="+", help="train nothing; print the table of what these hold")
    parser.add_argument(
        "--only", metavar="REGEX", default="", help="of --show, by model, dataset, cut, epochs and method"
    )
    parser.add_argument("--brief", action="store_true", help="of --show, with fewer columns")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    if options.show:
        rows = summarise(options.show)
        shown = [row for row in rows if re.search(options.only, " ".join(str(row[name]) for name in NAMED))]
        sys.stdout.write(table(shown, BRIEF if options.brief else HEADS) + "\n")
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(json.dumps(rows, indent=1) + "\n")
        if options.plot:
            draw(rows, options.plot)
        return
    if not options.model:
        parser.error("a model, or --show")
    torch.set_num_threads(options.threads)
    os.makedirs(options.out, exist_ok=True)
    for seed in options.seeds.split(","):
        for method in options.methods.split(";" if ";" in options.methods or ":" in options.methods else ","):
            run(method, int(seed), options)


if __name__ == "__main__":
    main()

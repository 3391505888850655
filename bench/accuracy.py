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
import re
import statistics
import sys
from collections.abc import Callable
from typing import Any

import markdown
import numpy as np
import record
import torch
from accuracy_chart import draw
from arguments import Arguments
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
METHOD = (
    "method", "codec", "config", "gradient", "regroup", "front", "decay", "tolerance", "local_loss", "gradient_every",
    "correction",
)  # fmt: skip
#: Fields of a plan that older runs and rows lack, and what they were then.
LATER = {"local_loss": 0.0, "gradient_every": 1, "correction": 0.0}
#: What `--only` looks at.
NAMED = ("model", "dataset", "cut", "n_epochs", "method")


def run(method: str, seed: int, options: argparse.Namespace) -> None:
    """Trains one method and seed; writes its record when it is done."""
    parsed = parse(method, METHODS)
    plan = Plan(
        options.model, options.cut, parsed.codec, parsed.config, parsed.gradient, seed, options.epochs, options.batch,
        options.lr, options.weight_decay, options.augment, options.mixed, regroup=options.regroup,
        front=not options.freeze_front, decay=options.decay, tolerance=options.tolerance,
        every=options.every, noise_filling=options.noise_filling, local_loss=options.local_loss,
        gradient_every=options.gradient_every, correction=options.correction,
    )  # fmt: skip
    # Without what older runs lack, so that a run keeps its name.
    told = {name: value for name, value in plan._asdict().items() if name not in LATER or value != LATER[name]}
    described = {"method": method, "dataset": options.dataset, "limit": options.limit, "plan": told}
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
    made = {
        **described,
        "feature": list(trainer.shape),
        "formula_bytes_up": trainer.codec.formula_bits(trainer.shape) / 8,
        **record.head("torch", "numpy"),
        "epochs": trainer.run(),
    }
    record.write(made, path)


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
        return [{**LATER, **row} for row in record.read(source)]
    runs = [record.read(path) for path in sorted(glob.glob(os.path.join(source, "*.json")))]
    if not runs:
        sys.exit(f"{source}: neither a file of rows nor a folder with runs")
    return [_row(each) for each in sorted(runs, key=lambda each: int(each["plan"]["seed"]))]


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


def told(method: str, plan: dict[str, Any]) -> str:
    """`method` and what else sets it apart in a table."""
    share = {None: "", "lost": ", noise filling"}.get(plan["noise_filling"], f", noise filling {plan['noise_filling']}")
    local = f", local loss {plan['local_loss']:g}" if plan["local_loss"] else ""
    rarely = f", gradient every {plan['gradient_every']} steps" if plan["gradient_every"] > 1 else ""
    pulled = f", correction {plan['correction']:g}" if plan["correction"] else ""
    return method + share + local + rarely + pulled + ("" if plan["front"] else ", front half frozen")


def _row(run: dict[str, Any]) -> dict[str, Any]:
    plan, last = {**LATER, **run["plan"]}, run["epochs"][-1]
    tested = [line for line in run["epochs"] if "accuracy" in line]
    return {
        "model": plan["model"],
        "cut": plan["cut"],
        **{name: run[name] for name in ("feature", "dataset", "limit")},
        "n_epochs": plan["epochs"],
        **{name: plan[name] for name in ("batch", "lr", "mixed", "augment", "weight_decay")},
        "method": told(run["method"], plan),
        **{name: plan[name] for name in METHOD[1:]},
        "seeds": [plan["seed"]],
        "accuracy": round(last["accuracy"], 2),
        "accuracies": [last["accuracy"]],
        "spread": 0.0,
        "bytes_up": round(last["bytes_up_per_image"], 1),
        "bytes_down": round(last["bytes_down_per_image"], 1),
        "formula_bytes_up": run["formula_bytes_up"],
        "curve": [[line["images"], line["accuracy"], round(line["loss"], 4)] for line in tested],
        "versions": run["versions"],
        "command": run["command"],
    }


def _with_spread(row: dict[str, Any]) -> str:
    spread = f" ± {row['spread'] / 2:.2f}" if len(row["seeds"]) > 1 else ""
    return f"{row['accuracy']:.2f}{spread}"


def _ratio(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{row[name]}x" if name in row else ""


#: Head of a column -> the text of its cell. Bytes are measured at the frame, per training image.
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda row: row["model"],
    "data": lambda row: row["dataset"],
    "cut": lambda row: row["cut"] or "default",
    "epochs": lambda row: str(row["n_epochs"]),
    "method": lambda row: row["method"].replace("+" + row["gradient"], ""),
    "gradient": lambda row: row["gradient"],
    "seeds": lambda row: str(len(row["seeds"])),
    "accuracy": _with_spread,
    "below FP32": lambda row: f"{row['below_fp32']:+.2f}" if "below_fp32" in row else "",
    "B up": lambda row: f"{row['bytes_up']:,.0f}",
    "B down": lambda row: f"{row['bytes_down']:,.0f}",
    "up": _ratio("ratio_up"),
    "up, to UQ-4": _ratio("ratio_uq"),
    "both ways": _ratio("ratio_both"),
}
BRIEF = ("model", "method", "gradient", "seeds", "accuracy", "below FP32", "B up", "B down", "both ways")


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("model", nargs="?")
    arguments.add(cut=None, dataset="cifar10", data=None, limit=None)
    arguments.add("separated by commas, or by ; where they hold one", methods="FP32,UQ-4,SGQ-4")
    arguments.add(seeds="0", epochs=12, batch=64, lr=0.02, weight_decay=5e-4, noise_filling=None, threads=1)
    arguments.add("random crops and flips", augment=False)
    arguments.add("networks compute in bfloat16 (see bfloat16.py)", mixed=False)
    arguments.add("epochs from one grouping of the channels to the next; 0: never", regroup=0)
    arguments.add("of the codebooks' moving averages", decay=0.9)
    arguments.add("codewords that moved further are sent", tolerance=0.1)
    arguments.add("epochs from one evaluation to the next", every=2)
    arguments.add("do not train the front half", freeze_front=False)
    arguments.add("weight of the device's local loss; 0: none", local_loss=0.0)
    arguments.add("steps from one gradient to the next; needs --local-loss", gradient_every=1)
    arguments.add("FedLite's, of codecs with codebooks, in lengths of the gradient; 0: none", correction=0.0)
    arguments.add_argument("--out", metavar="DIR", default="runs")
    arguments.add_argument(
        "--show", metavar="PATH", nargs="+", help="train nothing; print the table of what these hold"
    )
    arguments.add("regular expression; of --show, by model, dataset, cut, epochs and method", only="")
    arguments.add("of --show, with fewer columns", brief=False)
    arguments.add(json=None, plot=None)
    options = arguments.parse_args()
    if options.show:
        rows = summarise(options.show)
        shown = [row for row in rows if re.search(options.only, " ".join(str(row[name]) for name in NAMED))]
        heads = BRIEF if options.brief else tuple(COLUMNS)
        sys.stdout.write(markdown.table(heads, [[COLUMNS[head](row) for head in heads] for row in shown]) + "\n")
        if options.json:
            record.write(rows, options.json)
        if options.plot:
            draw(rows, options.plot)
        return
    if not options.model:
        arguments.error("a model, or --show")
    torch.set_num_threads(options.threads)
    os.makedirs(options.out, exist_ok=True)
    for seed in options.seeds.split(","):
        for method in options.methods.split(";" if ";" in options.methods or ":" in options.methods else ","):
            run(method, int(seed), options)


if __name__ == "__main__":
    main()

"""Whole-model federated learning: bytes to an accuracy, by update codec, with and without scales of filters.

\b
python bench/federated.py vgg11_thin --data DIR --clients 8 --rounds 90 --methods papers --out runs
python bench/federated.py allcnn --dataset mnist --data DIR --clients 20 --methods "FedAvg;DHQC;D-DHQC" --out runs
python bench/federated.py --show runs --to 60,65 --json bench/results/federated.json

Runs that `--out` has already are not made again; one that was interrupted goes on from its last round. `--show` takes
folders of runs and what `--json` wrote. A method is a name of METHODS, or an update codec, behind which "@scaling=on",
"@sampling=dynamic:0.05" and "@down=CODEC" may stand; `--methods` separates them by ";".
"""

import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

import markdown
import record
import torch
from arguments import Arguments

from edgekit.data import images, registry
from edgekit.errors import UnknownName, UsageError
from edgekit.export.models.registry import build
from edgekit.export.named import default_shape
from edgekit.federate.run import Plan, Run
from edgekit.federate.server import Policy
from edgekit.federate.settings import Local

SCALED = "@scaling=on:epochs=1,lr=0.005,schedule=linear"
#: The rows of FSFL's table 2, of which the second is uniform quantisation with the paper's step (its sparsity drops no
#: value); and those of DHQC.
METHODS = {
    "FedAvg": "fedavg",
    "FedAvg, coded": "fsfl:sparsity=1e-9,gamma=0",
    "STC": "stc:keep=0.04",
    "STC, scaled": "stc:keep=0.04" + SCALED,
    "sparse": "fsfl:sparsity=0.96",
    "FSFL": "fsfl:sparsity=0.96" + SCALED,
    # In steps that suit changes as large as those of SGD; and fewer values than the paper's.
    "FedAvg, coarsely": "fsfl:sparsity=1e-9,gamma=0,step=0.004,fine=0.0001,feedback=true",
    "STC 1 %, scaled": "stc:keep=0.01" + SCALED,
    "FSFL 1 %": "fsfl:sparsity=0.99,step=0.004,fine=0.0001,feedback=true" + SCALED,
    "TernGrad": "terngrad",
    "DGC": "dgc:keep=0.01",
    "DHQC": "dhqc:keep=0.01",
    "D-DHQC": "dhqc:keep=0.01@sampling=dynamic:0.05",
}
#: What `--methods papers` is.
PAPERS = {
    "vgg11_thin": ("FedAvg", "FedAvg, coded", "STC", "STC, scaled", "sparse", "FSFL"),
    "allcnn": ("FedAvg", "TernGrad", "DGC", "DHQC", "D-DHQC"),
}
#: What "@NAME=" behind a codec sets.
BEHIND = {
    "scaling": "scaling", "sampling": "sampling", "down": "down_codec", "statistics": "statistics_codec",
    "scales": "scales_codec",
}  # fmt: skip
#: What two rows must share to be compared.
SETTING = ("model", "dataset", "limit", "clients", "partition", "rounds", "seed", "local")
#: What tells runs of one setting apart: options may change what a method's name means.
MEANT = ("update_codec", "down_codec", "scaling", "sampling", "policy", "statistics_codec", "scales_codec")


def plan(method: str, seed: int, options: argparse.Namespace) -> Plan:
    """What a method runs by. UsageError or UnknownName for one that makes no sense."""
    codec, *behind = METHODS.get(method, method).split("@")
    local = Local(
        options.local_epochs, options.batch, options.optimizer, options.lr, options.momentum, options.weight_decay,
        options.schedule, options.augment, options.validation, options.norms,
        "bfloat16" if options.mixed else "float32",
    )  # fmt: skip
    said = {"down_codec": options.down, "sampling": options.sampling}
    for each in behind:
        name, _, value = each.partition("=")
        if name not in BEHIND:
            raise UnknownName("setting of a method", name, BEHIND, f"there are: {', '.join(BEHIND)}")
        said[BEHIND[name]] = value
    made = Plan(
        options.clients, options.rounds, options.partition, codec, **said, local=local, seed=seed,
        policy=Policy(momentum=options.server_momentum), evaluate_every=options.every,
    )  # fmt: skip
    made.check()
    return made


def run(method: str, made: Plan, options: argparse.Namespace) -> None:
    """Makes one run, or goes on with it; writes its record when it is done."""
    described = {
        **{name: getattr(options, name) for name in ("model", "dataset", "limit")}, "method": method,
        "plan": told(made),
    }  # fmt: skip
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]
    path = os.path.join(options.out, f"{options.model}-{re.sub('[^A-Za-z0-9]+', '_', method)}-{made.seed}-{name}")
    if os.path.exists(path + ".json"):
        return
    loaded = registry.load(options.dataset, options.data, options.limit, 0)
    shape = default_shape(loaded)
    dataset = images.fit(loaded, shape)

    def show(line: Mapping[str, Any]) -> None:
        wanted = ("round", "clients", "loss", "accuracy", "bytes_up", "bytes_down", "scaled", "cpu_s")
        shown = " ".join(f"{key} {line[key]:.5g}" for key in wanted if key in line)
        sys.stderr.write(f"{method} seed {made.seed}: {shown}\n")

    network = build(options.model, shape, len(dataset.classes), made.seed)
    lines = Run(network, dataset, made, path, options.device).run(show)
    record.write({**described, **record.head("torch", "numpy"), "rounds": lines}, path + ".json")
    shutil.rmtree(path)


def told(made: Plan) -> dict[str, Any]:
    return {**made._asdict(), "policy": made.policy._asdict(), "local": made.local._asdict()}


def summarise(sources: list[str]) -> list[dict[str, Any]]:
    """One row for each run of all that folders of runs and files of rows hold; a row that comes twice counts once."""
    rows: dict[str, dict[str, Any]] = {}
    for source in sources:
        for row in _rows(source):
            rows.setdefault(json.dumps([row[name] for name in (*SETTING, "method", *MEANT)], sort_keys=True), row)
    return list(rows.values())


def _rows(source: str) -> list[dict[str, Any]]:
    if os.path.isfile(source):
        return list(record.read(source))
    found = [_row(record.read(path)) for path in sorted(glob.glob(os.path.join(source, "*.json")))]
    if not found:
        sys.exit(f"{source}: neither a file of rows nor a folder with runs")
    return found


def _row(made: dict[str, Any]) -> dict[str, Any]:
    of, lines = made["plan"], made["rounds"]
    up = down = formula = 0
    curve = []
    for line in lines:
        up, down, formula = up + line["bytes_up"], down + line["bytes_down"], formula + line["formula_bytes_up"]
        if "accuracy" in line:
            curve.append([line["round"], up, down, round(formula), round(line["accuracy"], 2)])
    train, scaling = (sum(line.get(name, 0.0) for line in lines) for name in ("train_cpu_s", "scaling_cpu_s"))
    return {
        **{name: made[name] for name in ("model", "dataset", "limit", "method")},
        **{name: of[name] for name in ("clients", "partition", "rounds", "seed", "local")},
        **{name: of[name] for name in MEANT},
        "best": max(point[-1] for point in curve),
        "cpu_s_per_round": round(sum(line["cpu_s"] for line in lines) / len(lines), 2),
        #: Of the clients' own work with scaling to that without (table 1 of the paper).
        "scaling_overhead": round((train + scaling) / train, 2) if scaling else None,
        "scaled": sum(line.get("scaled", 0) for line in lines) / sum(line["clients"] for line in lines),
        "curve": curve,
        **{name: made[name] for name in ("versions", "command")},
    }  # fmt: skip


def reached(row: dict[str, Any], accuracy: float) -> list[Any] | None:
    """The first point of the row's curve that has the accuracy: round, bytes up, down, by formula, accuracy."""
    return next((point for point in row["curve"] if point[-1] >= accuracy), None)


def table(rows: list[dict[str, Any]], targets: list[float]) -> str:
    """By setting and accuracy: megabytes that each method took to it, and how many times fewer than FedAvg."""
    lines = []
    for setting in dict.fromkeys(_setting(row) for row in rows):
        mine = [row for row in rows if _setting(row) == setting]
        # By default what all of them come to.
        for target in targets or [min(row["best"] for row in mine)]:
            whole = next((reached(row, target) for row in mine if row["method"] == "FedAvg"), None)
            lines += [[cell(row, target, whole) for cell in COLUMNS.values()] for row in mine]
    return markdown.table(tuple(COLUMNS), lines)


def _setting(row: dict[str, Any]) -> str:
    return json.dumps([row[name] for name in SETTING], sort_keys=True)


Cell = Callable[[dict[str, Any], float, list[Any] | None], str]


def _at(show: Callable[[list[Any]], str]) -> Cell:
    """Of the point at which the accuracy is reached."""
    return lambda row, target, _: show(point) if (point := reached(row, target)) else "-"


def _fewer(size: Callable[[list[Any]], int]) -> Cell:
    """How many times fewer bytes than FedAvg."""
    return lambda row, target, whole: (
        f"{size(whole) / size(point):.1f}x" if whole and (point := reached(row, target)) else "-"
    )


#: Head of a column -> the text of its cell.
COLUMNS: dict[str, Cell] = {
    "model": lambda row, target, whole: row["model"],
    "data": lambda row, target, whole: row["dataset"],
    "method": lambda row, target, whole: row["method"],
    "down": lambda row, target, whole: row["down_codec"],
    "seed": lambda row, target, whole: str(row["seed"]),
    "accuracy": lambda row, target, whole: f"{target:.2f}",
    "round": _at(lambda point: str(point[0])),
    "MB up": _at(lambda point: f"{point[1] / 1e6:.3f}"),
    "MB down": _at(lambda point: f"{point[2] / 1e6:.3f}"),
    "formula MB up": _at(lambda point: f"{point[3] / 1e6:.3f}"),
    "fewer up": _fewer(lambda point: int(point[1])),
    "fewer both ways": _fewer(lambda point: int(point[1] + point[2])),
    "best": lambda row, target, whole: f"{row['best']:.2f}",
    "scaling takes": lambda row, target, whole: f"{row['scaling_overhead']:.2f}x" if row["scaling_overhead"] else "",
}


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("model", nargs="?")
    arguments.add(dataset="cifar10", data=None, limit=None)
    arguments.add('separated by ";", or papers: those of the papers for the model', methods="papers")
    arguments.add(clients=8, rounds=90, partition="iid", seeds="0")
    arguments.add("passes over a client's images in a round", local_epochs=1)
    arguments.add(batch=64, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="constant")
    arguments.add("as of `edgekit train`", augment="flip")
    arguments.add("share of a client's images that scales are chosen by", validation=0.2)
    arguments.add("statistics of batch norms, average or frozen", norms="average")
    arguments.add("momentum of the server", server_momentum=0.0)
    arguments.add("who takes part in a round, where a method does not say", sampling="all")
    arguments.add("update codec of what goes down, none: float32, where a method does not say", down="none")
    arguments.add("rounds from one test to the next", every=1)
    arguments.add("networks compute in bfloat16", mixed=False)
    arguments.add(device="cpu", threads=1)
    arguments.add_argument("--out", metavar="DIR", default="runs")
    arguments.add_argument(
        "--show", metavar="PATH", nargs="+", help="train nothing; print the table of what these hold"
    )
    arguments.add("accuracies in percent, for --show (default: what all methods came to)", to="")
    arguments.add(json=None)
    options = arguments.parse_args()
    if options.show:
        rows = summarise(options.show)
        sys.stdout.write(table(rows, [float(each) for each in options.to.split(",") if each]) + "\n")
        if options.json:
            record.write(rows, options.json)
        return
    if not options.model:
        arguments.error("a model, or --show")
    if options.methods == "papers" and options.model not in PAPERS:
        arguments.error(f"--methods papers knows {', '.join(PAPERS)}: name the methods")
    methods = PAPERS[options.model] if options.methods == "papers" else options.methods.split(";")
    try:
        made = [(method, plan(method, int(seed), options)) for seed in options.seeds.split(",") for method in methods]
    except UsageError as error:
        arguments.error(str(error))
    torch.set_num_threads(options.threads)
    os.makedirs(options.out, exist_ok=True)
    for method, each in made:
        run(method, each, options)


if __name__ == "__main__":
    main()

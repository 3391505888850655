"""Rounds of split learning by each update codec: accuracy, bytes, and whether all end with one network.

``python bench/rounds.py --dataset cifar10 --data DIR --limit 10000 --out FOLDER``: for each codec and way a training of
4 devices by `edgekit.launch.train`: a server and devices as real processes. FOLDER gets a file of each; those that it
has are not made again, and one that was killed goes on from its latest checkpoint. ``--show FOLDER`` prints the table,
``--json FILE`` writes its rows.

"two ways": the codec codes both ways of a round. "one way": the new weights come back uncompressed. "one network": the
front halves and codebooks of all devices and of the server are the same files, byte for byte.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import markdown
import record
from arguments import Arguments

from edgekit.codecs.registry import UPDATES
from edgekit.errors import EdgekitError
from edgekit.export.settings import NamedData, NamedNetwork
from edgekit.launch.earlier import RECORD
from edgekit.launch.settings import Server, Training
from edgekit.launch.train import train
from edgekit.line.meter import TRAINING_KINDS
from edgekit.saves import found
from edgekit.server.modes import FleetSettings

TWO, ONE = "two ways", "one way"
DENSE = "fedavg"
#: What a round is made of, by direction and kind of message.
ROUND = ("up.update", "down.weights")
#: What tells one row from another, but for the seed.
SETTING = ("model", "dataset", "limit", "devices", "partition", "epochs", "batch", "sync_every", "codec", "way")


def plans(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that `options` ask for; what is sent uncompressed anyway has one way only."""
    made = []
    for codec in options.codecs:
        for way in [TWO] if codec == DENSE else options.ways:
            for seed in map(int, options.seeds.split(",")):
                plan = {name: getattr(options, name) for name in SETTING if name not in ("codec", "way")}
                made.append({**plan, "codec": codec, "way": way, "seed": seed})
    return made


def make_runs(wanted: list[dict[str, Any]], out: str, data: str | None) -> None:
    """Makes those of the runs `wanted` that the folder `out` does not have; `data` is where the dataset's files are."""
    for plan in wanted:
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        folder = Path(out) / f"{plan['codec'].partition(':')[0]}-{plan['way'].replace(' ', '-')}-{digest}"
        file = folder.with_suffix(".json")
        if file.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        made = {"plan": plan, **record.head("torch", "numpy", "onnxruntime"), **run(plan, data, folder)}
        record.write(made, str(file))
        shutil.rmtree(folder)
        sys.stderr.write(f"{folder.name}: {made['accuracy']:.2f} %, {sum(made['bytes'].values()) / 1e6:.2f} MB\n")


def run(plan: dict[str, Any], data: str | None, folder: Path) -> dict[str, Any]:
    """What the training of `plan` came to; it goes on where `folder` holds a part of it."""
    down = DENSE if plan["way"] == ONE else None
    begun = bool(found(str(folder / "server")))
    summary = train(
        NamedNetwork(plan["model"]),
        data=NamedData(plan["dataset"], data, plan["limit"]),
        training=Training(plan["devices"], plan["partition"], plan["epochs"], plan["batch"]),
        server=Server(fleet=FleetSettings(sync_every=plan["sync_every"], update_codec=plan["codec"],
                                          update_codec_down=down)),
        seed=plan["seed"], out=str(folder), resume=begun, overwrite=not begun,
    )  # fmt: skip
    return {
        "accuracy": summary["accuracy"],
        "images": summary["images"],
        "bytes": {kind: n for kind, n in summary["bytes_by_kind"].items() if kind.split(".")[1] in TRAINING_KINDS},
        "rounds": summary["fleet"]["rounds"],
        "one_network": in_step(folder, plan["devices"]),
        "curve": curve(folder / RECORD),
    }


def curve(path: Path) -> list[dict[str, Any]]:
    """Accuracy and bytes of all devices after each epoch, from a record that may have some twice."""
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tested: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "epoch" and "fleet" in event:
            tested.setdefault(event["epoch"], {})[event["device"]] = event
    return [
        {
            "epoch": epoch,
            "accuracy": next(iter(each.values()))["fleet"]["accuracy"],
            "bytes": sum(event["bytes_up"] + event["bytes_down"] for event in each.values()),
        }
        for epoch, each in sorted(tested.items())
    ]


def in_step(folder: Path, devices: int) -> bool:
    """Whether all devices and the server kept the same front half and codebooks; EdgekitError where one kept none."""
    for name in ("front.safetensors", "tables.safetensors"):
        kept = [folder / place / name for place in ("server", *(f"device-{index}" for index in range(devices)))]
        missing = [str(path) for path in kept if not path.exists()]
        if missing:
            raise EdgekitError(f"{', '.join(missing)}: not kept")
        if len({path.read_bytes() for path in kept}) > 1:
            return False
    return True


def rows(source: str) -> list[dict[str, Any]]:
    """One row for each setting, over its seeds, from a folder of runs or a file of rows; the bytes are means."""
    if os.path.isfile(source):
        return list(record.read(source)["rows"])
    together: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(Path(source).glob("*.json")):
        each = record.read(str(path))
        together.setdefault(json.dumps([each["plan"][key] for key in SETTING]), []).append(each)
    made = []
    for runs in together.values():
        runs.sort(key=lambda each: int(each["plan"]["seed"]))
        sums = [{kind: each["bytes"].get(kind, 0) for kind in each["bytes"]} for each in runs]
        made.append(
            {
                **{key: runs[0]["plan"][key] for key in SETTING},
                "seeds": [each["plan"]["seed"] for each in runs],
                "accuracies": [round(each["accuracy"], 2) for each in runs],
                "bytes": {kind: round(statistics.mean(each.get(kind, 0) for each in sums)) for kind in sums[0]},
                "rounds": runs[0]["rounds"],
                "one_network": all(each["one_network"] for each in runs),
                "curve": runs[0]["curve"],
                "versions": runs[0]["versions"],
            }
        )
    return sorted(made, key=lambda row: (row["codec"] != DENSE, row["codec"], row["way"]))


def show(table: list[dict[str, Any]]) -> str:
    """`table` in Markdown."""
    lines = []
    for row in table:
        up, down = (row["bytes"].get(kind, 0) for kind in ROUND)
        total = sum(row["bytes"].values())
        lines.append(
            [
                row["codec"], row["way"], " / ".join(f"{value:.2f}" for value in row["accuracies"]),
                *(f"{value / 1e6:.3f}" for value in (up, down)), f"{total / 1e6:.2f}",
                f"{100 * (up + down) / total:.2f} %", "yes" if row["one_network"] else "NO",
            ]
        )  # fmt: skip
    heads = [
        "codec",
        "ways",
        "accuracy, %",
        "rounds up, MB",
        "down, MB",
        "all bytes, MB",
        "rounds' share",
        "one network",
    ]
    return markdown.table(heads, lines)


def main() -> None:
    parser = Arguments(__doc__)
    parser.add(model="vgg11_thin", dataset="digits", data=None, limit=None, devices=4, partition="iid", epochs=10)
    parser.add(batch=32, sync_every="1epoch", seeds="0", out=None, json=None)
    parser.add_argument("--codecs", nargs="+", default=sorted(UPDATES), metavar="CODEC", help="default: all")
    parser.add_argument("--ways", nargs="+", default=[TWO, ONE], choices=[TWO, ONE], help="default: both")
    parser.add_argument("--show", metavar="FOLDER", help="train nothing; print the table of what --out or --json wrote")
    options = parser.parse_args()
    if options.show:
        table = rows(options.show)
        if options.json:
            record.write({**record.head("torch", "numpy", "onnxruntime"), "rows": table}, options.json)
        sys.stdout.write(show(table) + "\n")
        return
    if not options.out:
        parser.error("--out FOLDER is missing: what is made is kept there")
    make_runs(plans(options), options.out, options.data)


if __name__ == "__main__":
    main()

"""Many devices, one network: accuracy of fleets against one device that has all images, with and without rounds.

\b
python bench/fleet.py --models vgg11_thin --devices 1,4,16 --modes sync,alone --seeds 0,1,2 --out runs/fleet
python bench/fleet.py --show runs/fleet --json bench/results/fleet.json

One device trains for --epochs, a fleet for --times as many. Graphs, codecs, frames, sessions and the server are those
of `edgekit train`, at its defaults; the devices are threads of one process, so that sixteen of them start in seconds.
Modes: sync and async as `edgekit train --mode`; sync-alone and async-alone without rounds; today is async-alone with
each batch a step of its own, as it was before there were rounds; fp32 is sync without compression. Runs that --out has
are not made again.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import markdown
import record
import torch
from arguments import Arguments

from edgekit.bundle import Bundle, open_bundle
from edgekit.codecs.registry import parse_feature_codec
from edgekit.data import images, partition, registry
from edgekit.data.base import Dataset
from edgekit.export.named import export_named
from edgekit.export.settings import Calibration, Coding, NamedNetwork
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.server.calibrate import calibrator, default_policy
from edgekit.server.modes import FleetSettings
from edgekit.server.service import Service
from edgekit.server.setup import setup_from_bundle
from edgekit.server.train import OptimizerConfig
from edgekit.server.watch import Watch

#: How devices are kept together, and whether anything is compressed.
MODES: dict[str, tuple[FleetSettings, bool]] = {
    "sync": (FleetSettings(), True),
    "async": (FleetSettings("async"), True),
    "sync-alone": (FleetSettings(sync_every="0"), True),
    "async-alone": (FleetSettings("async", "0"), True),
    "today": (FleetSettings("async", "0", step_wait=0.0, quorum=0.0), True),
    "fp32": (FleetSettings(), False),
}
#: The default of `edgekit train`.
CODEC = "sgq:groups=8,bits=4"
SETTING = (
    "model",
    "dataset",
    "limit",
    "partition",
    "devices",
    "mode",
    "sync_every",
    "joint_batch",
    "epochs",
    "batch",
    "lr",
)


def run(plan: dict[str, Any], data: str | None, folder: str) -> dict[str, Any]:
    """What `plan` came to: its epochs, its bytes, and its final accuracy."""
    seed = plan["seed"]
    dataset = registry.load(plan["dataset"], data, plan["limit"], seed)
    fleet, compressed = MODES[plan["mode"]]
    if plan["sync_every"]:
        fleet = fleet._replace(sync_every=plan["sync_every"])
    if plan["joint_batch"]:
        fleet = fleet._replace(joint_batch=plan["joint_batch"])
    codec = parse_feature_codec(plan.get("codec", CODEC) if compressed else "raw")
    path = os.path.join(folder, f"{plan['model']}-{seed}-{codec.codec_id}")
    if not os.path.exists(path):
        export_named(path, NamedNetwork(plan["model"]), Calibration(dataset), Coding(codec), seed=seed)
    bundle = open_bundle(path)
    events: list[dict[str, Any]] = []
    lock = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        with lock:
            events.append(event)

    service = _service(bundle, plan, fleet, tell)
    start = time.perf_counter()
    failed: list[Exception] = []
    in_step = bool(fleet.rounds(plan["devices"]).every)
    threads = [
        threading.Thread(target=_device, args=(bundle, plan, dataset, index, in_step, service, tell, failed))
        for index in range(plan["devices"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    done = [event for event in events if event["event"] == "done"]
    right, tested = (sum(sum(event["by_class"][key]) for event in done) for key in ("correct", "images"))
    kinds = sorted({kind for event in done for kind in event["bytes"]})
    return {
        "accuracy": 100.0 * right / tested,
        "accuracies": sorted(round(event["accuracy"], 2) for event in done),
        "images": sum(event["images"] for event in done),
        "bytes": {kind: sum(event["bytes"].get(kind, 0) for event in done) for kind in kinds},
        "curve": _curve(events, plan["devices"]),
        "distortion": _distortion(events),
        "warnings": [event["warning"] for event in events if event["event"] == "warned" and "epoch" not in event],
        "fleet": {name: value for name, value in service.ended().items() if name != "event"},
        "seconds": round(time.perf_counter() - start, 1),
    }


def _service(bundle: Bundle, plan: dict[str, Any], fleet: FleetSettings, tell: Any) -> Service:
    torch.manual_seed(plan["seed"])
    setup = setup_from_bundle(
        bundle, torch.device("cpu"), calibrator(default_policy(bundle), plan["seed"]),
        OptimizerConfig(lr=plan["lr"], weight_decay=5e-4), "cosine",
    )  # fmt: skip
    devices = plan["devices"]
    rounds = fleet.rounds(devices)
    watch = Watch(setup.classes, setup.golden_size, bool(rounds.every))
    return Service(setup, tell, fleet.patience(devices), rounds, seed=plan["seed"], watch=watch)


def _device(
    bundle: Bundle, plan: dict[str, Any], dataset: Dataset, index: int, in_step: bool, service: Service, tell: Any,
    failed: list[Exception],
) -> None:  # fmt: skip
    """Trains device number `index`; an error goes into `failed`, and ends its session."""
    try:
        seed, count = plan["seed"], plan["devices"]
        share = partition.shares(dataset.train_labels, count, plan["partition"], seed)[index]
        tested = partition.shares(dataset.test_labels, count if in_step else 1, "iid", seed)[index if in_step else 0]
        mine = images.fit(
            dataset._replace(
                train_images=dataset.train_images[share], train_labels=dataset.train_labels[share],
                test_images=dataset.test_images[tested], test_labels=dataset.test_labels[tested],
            ),
            bundle.input_shape,
        )  # fmt: skip
        options = Options(
            f"device-{index:02d}", plan["epochs"], plan["batch"], seed=seed + index, evaluate_every=plan["every"]
        )  # fmt: skip
        device = Device(FrontHalf(bundle, "onnxruntime", 1), Loopback(service.handle, Meter()), options, tell)
        device.train(Images(mine.train_images, mine.train_labels), Images(mine.test_images, mine.test_labels))
    except Exception as error:  # noqa: BLE001 - raised again when all threads have ended
        failed.append(error)
        for session in service.fleet.in_order():
            if session.device == f"device-{index:02d}":
                service.broke(session.number, None)


def _distortion(events: list[dict[str, Any]]) -> float | None:
    """Mean over devices and epochs of what quantising lost of the epoch's last batch; None without codebooks."""
    found = [each["codebook"]["distortion"] for each in events if each["event"] == "epoch" and "codebook" in each]
    return statistics.mean(found) if found else None


def _curve(events: list[dict[str, Any]], devices: int) -> list[dict[str, Any]]:
    """After each epoch that was tested: images seen and bytes sent by all devices, accuracy over all."""
    by_epoch: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["event"] == "epoch" and "by_class" in event:
            by_epoch.setdefault(event["epoch"], []).append(event)
    curve = []
    for epoch, found in sorted(by_epoch.items()):
        if len(found) == devices:
            right, tested = (sum(sum(event["by_class"][key]) for event in found) for key in ("correct", "images"))
            line = {name: sum(event[name] for event in found) for name in ("images", "bytes_up", "bytes_down")}
            loss = statistics.mean(event["loss"] for event in found)
            curve.append({"epoch": epoch, **line, "accuracy": round(100.0 * right / tested, 2), "loss": round(loss, 4)})
    return curve


def runs_of(sources: list[str], setting: Sequence[str]) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Of `sources`, the rows of files; and the runs in folders, those of one `setting` together, by seed."""
    made: list[dict[str, Any]] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for source in sources:
        if os.path.isfile(source):
            made += record.read(source)["rows"]
            continue
        for name in sorted(os.listdir(source)):
            if name.endswith(".json"):
                each = record.read(os.path.join(source, name))
                found.setdefault(json.dumps([each["plan"][key] for key in setting]), []).append(each)
    return made, [sorted(runs, key=lambda each: int(each["plan"]["seed"])) for runs in found.values()]


def rows(sources: list[str]) -> list[dict[str, Any]]:
    """One row for each setting, over its seeds, from folders of runs and files of rows."""
    made, found = runs_of(sources, SETTING)
    for runs in found:
        plan = runs[0]["plan"]
        made.append(
            {
                **{key: plan[key] for key in SETTING},
                "seeds": [each["plan"]["seed"] for each in runs],
                "accuracies": [round(each["accuracy"], 2) for each in runs],
                "accuracy": round(statistics.mean(each["accuracy"] for each in runs), 2),
                "by_device": [each["accuracies"] for each in runs],
                "images": runs[0]["images"],
                "bytes": {kind: round(statistics.mean(each["bytes"].get(kind, 0) for each in runs))
                          for kind in runs[0]["bytes"]},
                "curve": runs[0]["curve"],
                "fleet": runs[0]["fleet"],
            }
        )  # fmt: skip
    return sorted(made, key=lambda row: [str(row[key]).zfill(12) for key in SETTING])


def show(table: list[dict[str, Any]]) -> str:
    """`table` in Markdown: a row for each number of devices, a column for each mode."""
    modes = list(dict.fromkeys(row["mode"] for row in table if row["devices"] > 1))
    lines = []
    for model, part in dict.fromkeys((row["model"], row["partition"]) for row in table if row["devices"] > 1):
        here = [row for row in table if row["model"] == model]
        for devices in sorted({row["devices"] for row in here}):
            cells = []
            for mode in modes:
                fitting = [row for row in here if row["devices"] == devices and (devices == 1 or row["mode"] == mode)
                           and (devices == 1 or row["partition"] == part)]  # fmt: skip
                cells.append(" / ".join(f"{value:.2f}" for value in fitting[0]["accuracies"]) if fitting else "")
            lines.append([model, part, str(devices), *cells])
    return markdown.table(["model", "shares", "devices", *modes], lines)


def curves(table: list[dict[str, Any]]) -> str:
    """Accuracy and megabytes, both ways, of all devices, against images seen; and the bytes by kind at the end."""
    lines = []
    for row in table:
        sums = {
            name: sum(n for kind, n in row["bytes"].items() if kind in kinds) / 1e6
            for name, kinds in (
                ("features", ("up.feature", "up.codebook", "down.ack")), ("gradients", ("down.gradient",)),
                ("rounds", ("up.update", "down.weights")),
            )
        }  # fmt: skip
        spent = [
            f"{each['accuracy']:.1f} % / {(each['bytes_up'] + each['bytes_down']) / 1e6:.1f} MB"
            for each in row["curve"]
        ]
        lines.append([row["mode"], str(row["devices"]), *spent, *(f"{n:.1f}" for n in sums.values())])
    heads = [f"{each['images']:,} images" for each in table[0]["curve"]]
    return markdown.table(["mode", "devices", *heads, "features, MB", "gradients, MB", "rounds, MB"], lines)


def main() -> None:
    parser = Arguments(__doc__)
    parser.add(models="vgg11_thin", devices="1,2,4,8,16", modes="sync", seeds="0,1,2", partitions="iid")
    parser.add(dataset="digits", data=None, limit=None, out=None, json=None, sync_every="", joint_batch=0)
    parser.add(epochs=10, times=2, batch=32, every=1000, lr=0.05)
    parser.add_argument("--show", nargs="+", metavar="FOLDER")
    parser.add(curves=False)
    options = parser.parse_args()
    if options.show:
        table = rows(options.show)
        if options.json:
            record.write({**record.head("torch", "numpy", "onnxruntime"), "rows": table}, options.json)
        sys.stdout.write((curves if options.curves else show)(table) + "\n")
        return
    make_runs(plans(options), options.out, options.data)


def make_runs(wanted: Sequence[dict[str, Any]], out: str, data: str | None) -> None:
    """Makes those of the runs `wanted` that the folder `out` does not have; `data` is where the dataset's files are."""
    torch.set_num_threads(1)
    os.makedirs(out, exist_ok=True)
    for plan in wanted:
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        name = f"{plan['model']}-{plan['mode']}-{plan['devices']}-{plan['seed']}-{digest}"
        path = os.path.join(out, f"{name}.json")
        if os.path.exists(path):
            continue
        with tempfile.TemporaryDirectory() as folder:
            made = {"plan": plan, **record.head("torch", "numpy", "onnxruntime"), **run(plan, data, folder)}
        record.write(made, path)
        sys.stderr.write(f"{name}: {made['accuracy']:.2f} %, {made['seconds']} s\n")


def plans(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that `options` ask for; one device is run once for each seed, whatever the mode and the shares."""
    made = []
    for model in options.models.split(","):
        for seed in map(int, options.seeds.split(",")):
            for devices in map(int, options.devices.split(",")):
                modes, parts = options.modes.split(","), options.partitions.split(",")
                for mode in modes if devices > 1 else [mode for mode in modes if mode == "fp32"] or ["sync"]:
                    for part in parts if devices > 1 else ["iid"]:
                        epochs = options.epochs * (options.times if devices > 1 else 1)
                        made.append(
                            {"model": model, "dataset": options.dataset, "limit": options.limit, "partition": part,
                             "devices": devices, "mode": mode, "sync_every": options.sync_every,
                             "joint_batch": options.joint_batch, "epochs": epochs,
                             "batch": options.batch, "lr": options.lr, "every": options.every, "seed": seed}
                        )  # fmt: skip
    return made


if __name__ == "__main__":
    main()

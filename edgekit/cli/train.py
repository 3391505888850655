"""edgekit train"""

import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli import options

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

#: Options that describe a run in its record, and those handed on to the processes.
DESCRIBED = (
    "model", "device", "codec", "significance", "dataset", "limit", "devices", "partition", "epochs", "batch",
    "in_flight", "regroup_every", "optimizer", "lr", "momentum", "weight_decay", "schedule",
    "noise_filling", "calibration", "server_threads", "torch_device", "backend", "link", "seed",
)  # fmt: skip
FOR_SERVER = (
    "optimizer", "lr", "momentum", "weight_decay", "schedule", "gradient_codec", "noise_filling", "torch_device",
    "server_threads", "seed", "devices",
)  # fmt: skip
FOR_DEVICE = (
    "dataset", "data", "limit", "partition", "epochs", "batch", "in_flight", "regroup_every", "backend", "seed",
)  # fmt: skip


@click.command()
@options.model
@options.cut
@options.dataset
@click.option(
    "--devices", default=2, show_default=True, help="Device processes, each with its own share and front half."
)
@click.option("--partition", default="iid", show_default=True, help="iid or dirichlet:ALPHA.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--batch", default=32, show_default=True, help="Images per step and device.")
@click.option("--in-flight", default=1, show_default=True, help="Batches sent before a gradient must be back.")
@click.option(
    "--regroup-every", default=0, show_default=True, help="Epochs between new groupings of channels (sgq), 0: never."
)
@options.codec
@options.rate
@options.training
@options.network
@options.board
@click.option("--backend", default="onnxruntime", show_default=True, help="Engine on the devices.")
@click.option(
    "--link",
    metavar="RATE[/RATE][+DELAY]",
    help="Emulate this line, shared by the devices: 10mbit+50ms; all of it in `edgekit link -h` (default: none).",
)
@options.seed
@click.option("--out", metavar="DIR", help="Keep bundle, trained halves and record.jsonl here.")
@options.as_json
def train(**given: Any) -> None:
    """Export MODEL, start a server and device processes on this machine, and train.

    The processes are those of `edgekit serve` and `edgekit run`, talking gRPC over loopback. After each epoch the
    deployed pipeline (front, encode, decode, back) is evaluated on the whole test set.

    \b
    edgekit train vgg11 --dataset digits --devices 2 --codec sgq --bits 4 --groups 8 --epochs 10
    edgekit train mobilenet_v1 --dataset cifar10 --data DIR --codec raw --epochs 2 --out runs/raw
    """
    from rich.console import Console

    from edgekit.cli import rate
    from edgekit.cli.progress import LiveProgress, result_table
    from edgekit.launch.processes import Children
    from edgekit.launch.summary import summary
    from edgekit.line.meter import Recorder
    from edgekit.tensorfile import make_folder

    if given["devices"] < 1:
        raise click.BadParameter("expected at least 1", param_hint="--devices")
    _check(given)
    as_json, out = given["as_json"], given["out"]
    console = Console(file=sys.stderr if as_json else sys.stdout)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or scratch
        make_folder(folder)
        bundle = _export(os.path.join(folder, "bundle"), given)
        rate.show(console, bundle, given["rate_plot"])
        run = {
            **{name: given[name] for name in DESCRIBED},
            "calibrate": given["gradient_codec"],
            "cut": bundle.cut,
            "norm": bundle.norm,
            "codec_config": bundle.codec.config,
            "feature": list(bundle.feature_shape),
            "formula_bytes_up_per_image": bundle.codec.formula_bits(bundle.feature_shape) / 8,
            "bundle": bundle.digest,
            **({"rate": bundle.manifest["rate"]} if "rate" in bundle.manifest else {}),
        }
        with open(os.path.join(folder, "record.jsonl"), "w", encoding="utf-8") as file, Children() as children:
            record = Recorder(file)
            record(dict(run, event="start", command=sys.argv[1:], time=time.time()))
            children.start("server", _serve(bundle.path, folder, given))
            done = []
            with LiveProgress(console, run) as progress:
                for name, event in children.events():
                    if name == "server" and event["event"] == "listening":
                        run["calibrate"] = event["calibrate"]
                    if event["event"] == "listening" and name == "server" and given["link"]:
                        children.start("link", _link(event["port"], given))
                    elif event["event"] == "listening":
                        for i in range(given["devices"]):
                            children.start(f"device-{i}", _run(bundle.path, folder, i, event["port"], given))
                    if event["event"] == "done":
                        done.append(event)
                    if event["event"] != "progress":
                        record(dict(event, process=name))
                    progress.show(event)
            last = summary(run, done)
            record(last)
    console.print(result_table(last))
    if out:
        console.print(f"record: {os.path.join(out, 'record.jsonl')}")
    if as_json:
        options.print_json(last)


def _check(given: dict[str, Any]) -> None:
    """What the processes would refuse only after the export."""
    from edgekit.cli import rate
    from edgekit.link.link import parse_link
    from edgekit.runtime.backends.registry import backend_class
    from edgekit.schedule import check_schedule
    from edgekit.server.calibrate import calibrator

    rate.wanted(given)
    check_schedule(given["schedule"])
    backend_class(given["backend"])
    if given["link"] is not None:
        parse_link(given["link"])
    if given["gradient_codec"] is not None:
        calibrator(given["gradient_codec"], given["seed"])
    # Last, for these import torch, which takes seconds.
    from edgekit.server.noise_filling import noise_filling
    from edgekit.server.train import OptimizerConfig

    noise_filling(given["noise_filling"], rate.codec(given), given["seed"])
    OptimizerConfig(given["optimizer"], given["lr"], given["momentum"], given["weight_decay"]).check()


def _export(path: str, given: dict[str, Any]) -> "Bundle":
    from edgekit.cli import rate
    from edgekit.data import registry
    from edgekit.export.named import export_named

    with rate.goal(given) as goal:
        return export_named(
            given["model"],
            path,
            cut=given["cut"],
            dataset=registry.load(given["dataset"], given["data"], given["limit"], given["seed"]),
            codec=rate.codec(given),
            input_shape=given["input_shape"],
            calibration=given["calibration"],
            seed=given["seed"],
            overwrite=True,
            weights=given["weights"],
            device=given["device"],
            norm=given["norm"],
            batch_size=given["static_batch"],
            mean=given["mean"],
            std=given["std"],
            significance=given["significance"],
            goal=goal,
        )


def _serve(bundle: str, folder: str, given: dict[str, Any]) -> list[str]:
    flags = _flags({name: given[name] for name in FOR_SERVER})
    return ["serve", bundle, "--listen", "127.0.0.1:0", "--json", "--out", os.path.join(folder, "server"), *flags]


def _link(port: int, given: dict[str, Any]) -> list[str]:
    flags = _flags({"to": f"127.0.0.1:{port}", "connections": given["devices"], "seed": given["seed"]})
    return ["link", given["link"], "--json", *flags]


def _run(bundle: str, folder: str, index: int, port: int, given: dict[str, Any]) -> list[str]:
    flags = _flags({name: given[name] for name in FOR_DEVICE} | {"share": f"{index}/{given['devices']}"})
    out = os.path.join(folder, f"device-{index}")
    return ["run", bundle, "--server", f"127.0.0.1:{port}", "--json", "--out", out, *flags]


def _flags(values: dict[str, Any]) -> list[str]:
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in values.items() if value is not None}
    return [part for pair in given.items() for part in pair]

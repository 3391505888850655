"""edgekit train"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from edgekit.cli import options
from edgekit.cli.loading import loading
from edgekit.errors import UsageError


@click.command()
@click.argument("model", metavar="MODEL", required=False)
@options.cut
@options.dataset
@click.option("--devices", default=2, help="Device processes, each with its own share of the images.")
@click.option("--partition", default="iid", help="iid or dirichlet:ALPHA.")
@click.option("--epochs", default=10)
@click.option("--batch", default=32, help="Most images of a device in a step.")
@options.augment
@click.option("--in-flight", default=1, help="Batches sent before a gradient must be back.")
@click.option("--regroup-every", default=0, help="Epochs between new groupings of channels (sgq), 0: never.")
@click.option("--evaluate-every", default=1, help="Epochs between tests; the last one is always tested.")
@click.option("--validation", default=0.0, help="Share of the training images held back to choose the best pair by.")
@options.codec
@options.rate
@options.training
@options.fleet
@options.network
@options.board
@click.option("--backend", default="onnxruntime", help="Engine on the devices.")
@click.option(
    "--link",
    metavar="RATE[/RATE][+DELAY]",
    help="Emulate this line, shared by the devices: 10mbit+50ms; all of it in `edgekit link -h` (default: none).",
)
@options.seed
@click.option("--out", metavar="DIR", help="Keep bundle, trained halves and record.jsonl here.")
@options.checkpoint
@click.option("--resume", metavar="DIR", help="Go on with the training that DIR, an --out, holds, as it was called.")
@options.overwrite
@options.metrics
@options.as_json
def train(**given: Any) -> None:
    """Export MODEL, start a server and device processes on this machine, and train.

    The processes are those of `edgekit serve` and `edgekit run`, talking gRPC over loopback. After each epoch, or
    every few, the deployed pipeline (front, encode, decode, back) is evaluated on the whole test set.

    \b
    edgekit train vgg11 --dataset digits --devices 2 --codec sgq --bits 4 --groups 8 --epochs 10
    edgekit train mobilenet_v1 --dataset cifar10 --data DIR --codec raw --epochs 2 --out runs/raw
    edgekit train --resume runs/raw           after a crash or Ctrl-C
    """
    from edgekit.launch.earlier import command_of

    if given["resume"] is None:
        return _train(given)
    folder = given["resume"]
    if any(options.was_given(name) for name in given if name not in ("resume", "as_json")):
        raise UsageError(f"--resume {folder}: the training goes on as it was called: leave all else but --json out")
    with train.make_context("train", command_of(folder)) as context:
        _train({**context.params, "resume": folder, "out": folder, "overwrite": False, "as_json": given["as_json"]})


def _train(given: dict[str, Any]) -> None:
    """What the command does, with the options that were `given`."""
    if given["model"] is None:
        raise UsageError("MODEL is missing: `edgekit train vgg11_thin`; only --resume DIR does without")
    from rich.console import Console

    from edgekit.cli import rate, settings
    from edgekit.cli.progress import live_progress, result_table
    from edgekit.errors import Collapsed
    from edgekit.export.settings import Coding
    from edgekit.launch.settings import Server, Training

    training = Training(**{name: given[name] for name in Training._fields})
    training.check()
    options.check_overwrite(given)
    # Only now: it imports torch, which takes seconds.
    with loading():
        from edgekit.launch import train as launch

    if settings.hint(given):
        click.echo(settings.hint(given), err=True)
    as_json, out = given["as_json"], given["out"]
    console = Console(file=sys.stderr if as_json else sys.stdout)
    with contextlib.ExitStack() as screen:
        goal = screen.enter_context(rate.goal(given))
        progress: Callable[[dict[str, Any]], None] | None = None

        def show(event: dict[str, Any]) -> None:
            nonlocal progress
            if event["event"] == "start":
                # The choice of a rate, if there was one, is made.
                screen.close()
                network = f"{event['model']} cut at {event['cut']}"
                rate.show(console, event.get("rate"), network, given["rate_plot"])
                progress = screen.enter_context(live_progress(console, event))
            elif progress:
                progress(event)

        summary = launch.train(
            settings.network(given),
            data=settings.data(given),
            codec=Coding(rate.codec(given), given["significance"], goal),
            board=settings.board(given),
            training=training,
            server=Server.from_options(given),
            seed=given["seed"],
            out=out,
            overwrite=given["overwrite"],
            resume=given["resume"] is not None,
            metrics=given["metrics"],
            command=sys.argv[1:],
            on_event=show,
        )
    console.print(result_table(summary))
    if out:
        console.print(f"record: {os.path.join(out, 'record.jsonl')}")
    if as_json:
        options.print_json(summary)
    if summary["collapsed"]:
        raise Collapsed(f"training collapsed: {summary['collapsed']}; lower --lr, or look at the devices' images")

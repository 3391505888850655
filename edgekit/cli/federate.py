"""edgekit federate"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgekit.cli import options

Event = dict[str, Any]
#: As edgekit.federate.apart has them, which imports numpy.
STATISTICS_CODEC, SCALES_CODEC = "quantised:step=0.125", "quantised:step=0.05"


@click.command()
@click.argument("model", metavar="MODEL")
@options.dataset
@click.option("--clients", default=8, help="Clients, each with its own share of the images.")
@click.option("--partition", default="iid", help="iid or dirichlet:ALPHA.")
@click.option("--rounds", default=90)
@click.option("--sampling", default="all", help="Clients of a round: all, static:SHARE or dynamic:DECAY.")
@click.option(
    "--strategy",
    default="fedavg",
    help="Flower's strategy: fedavg, or fedavgm, fedadagrad, fedadam, fedyogi, with settings as in fedadam:lr=0.1.",
)
@click.option("--update-codec", default="quantised", help="How clients send what their weights changed by.")
@click.option(
    "--down-codec",
    default="none",
    help="How clients get what the server's weights changed by; none: they get all weights as they are.",
)
@click.option(
    "--statistics-codec",
    help="How statistics of batch norms travel (default: as weights do where that is fedavg or quantised, else "
    f"{STATISTICS_CODEC}).",
)
@click.option("--scales-codec", default=SCALES_CODEC, help="How scales of filters travel.")
@click.option(
    "--scaling",
    default="off",
    help="Trainable scales of filters: off, on, or on:KEY=VALUE,..., for example on:epochs=2,lr=0.01.",
)
@click.option("--local-epochs", default=1, help="Passes of a client over its images in a round.")
@click.option("--batch", default=64, help="Images of a client's step.")
@click.option("--optimizer", default="sgd", help="sgd or adam, of the clients; it begins anew in each round.")
@click.option("--lr", type=float, help="Learning rate of the clients (default: 0.05 for sgd, 0.001 for adam).")
@click.option("--momentum", default=0.9)
@click.option("--weight-decay", default=0.0)
@click.option("--schedule", default="constant", help="Learning rate over the rounds: constant or cosine.")
@options.augment
@click.option(
    "--validation",
    type=float,
    help="Share of a client's images that scales are chosen by (default: 0.2 with --scaling, else 0).",
)
@click.option("--evaluate-every", default=1, help="Rounds between tests; the last one is always tested.")
@options.network
@options.seed
@click.option("--workers", type=click.IntRange(1), help="Clients that train at once (default: as many as processors).")
@click.option(
    "--flower", metavar="DIR", help="Flower's environment (default: .venv-flower, which `make flower` makes)."
)
@click.option("--out", metavar="DIR", help="Keep the trained network and record.jsonl here.")
@options.overwrite
@options.as_json
def federate(**given: Any) -> None:
    """Train MODEL by federated learning, over Flower: whole networks on clients, updates packed both ways.

    Flower simulates clients and server on this machine, in an environment of its own (docs/federated.md). Nothing is
    cut or exported: `edgekit train` does that.

    \b
    make flower                                                                       # once
    edgekit federate vgg11_thin --clients 4 --rounds 10
    edgekit federate vgg11_thin --dataset cifar10 --data DIR --out runs/fsfl \
        --update-codec fsfl:step=2.44e-4 --down-codec fsfl:step=2.44e-4
    """
    options.check_overwrite(given)
    from edgekit.cli import settings
    from edgekit.federate.run import Plan
    from edgekit.federate.settings import Local
    from edgekit.federate.simulation import launch

    if given["validation"] is None:
        given["validation"] = 0.0 if given["scaling"] == "off" else 0.2
    local = Local(given["local_epochs"], **{name: given[name] for name in Local._fields if name in given})
    plan = Plan(**{name: given[name] for name in Plan._fields if name in given}, local=local)
    console = Console(file=sys.stderr if given["as_json"] else sys.stdout, highlight=False)
    with _progress(console, plan.rounds) as show:
        summary = launch.federate(
            settings.network(given),
            settings.data(given),
            plan,
            **{name: given[name] for name in ("strategy", "flower", "workers", "out", "overwrite")},
            command=sys.argv[1:],
            on_event=show,
        )
    console.print(result_table(summary))
    if given["out"]:
        console.print(f"record: {os.path.join(given['out'], 'record.jsonl')}")
    if given["as_json"]:
        options.print_json(summary)


@contextlib.contextmanager
def _progress(console: Console, rounds: int) -> Iterator[Callable[[Event], None]]:
    """A bar over the rounds; what it gives is called with the events, of which each round becomes a line."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("starting Flower", total=rounds)

        def show(event: Event) -> None:
            if event["event"] == "round":
                tested = f", accuracy {event['accuracy']:.2f} %" if "accuracy" in event else ""
                up, down = (event[f"bytes_{way}"] / event["clients"] for way in ("up", "down"))
                console.print(
                    f"round {event['round']}: {event['clients']} clients, loss {event['loss']:.3f}{tested}, "
                    f"{up:,.0f} B up, {down:,.0f} B down a client",
                    soft_wrap=True,
                )
                progress.update(bar, completed=event["round"], description="rounds")

        yield show


def result_table(summary: Event) -> Table:
    """The table of a finished run: accuracy, and bytes as measured and by formula."""
    table = Table(
        title=f"{summary['model']}, {summary['dataset']}, {summary['clients']} clients, {summary['rounds']} rounds",
        show_header=False,
    )
    best = f"; the best {summary['best_accuracy']:.2f} % after round {summary['best_round']}"
    table.add_row("accuracy", f"{summary['accuracy']:.2f} % of {summary['images_tested']} test images{best}")
    table.add_row("strategy", summary["strategy"])
    for way, codec in (("up", summary["update_codec"]), ("down", summary["down_codec"])):
        n, fewer = summary[f"bytes_{way}"], summary[f"times_fewer_{way}"]
        table.add_row(f"{way}, measured", f"{n / 1e6:,.3f} MB by {codec}, {fewer:.1f}x below whole weights")
    formula = summary["formula_bytes_up"]
    table.add_row("up, by formula", f"{formula / 1e6:,.3f} MB, {summary['bytes_whole'] / formula:.1f}x; updates alone")
    table.add_row("time", f"{summary['seconds']:.0f} s")
    return table

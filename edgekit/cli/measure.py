"""edgekit measure"""

import contextlib
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from edgekit.cli import options, scaling, to_accuracy
from edgekit.cli.screen import numbers, wide
from edgekit.errors import EdgekitError, UsageError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.measure.board import Board
    from edgekit.measure.cells import Plan
    from edgekit.measure.methods import Method
    from edgekit.measure.subjects import Subject

#: Prints a line for the user, beside what the command writes.
Say = Callable[[str], None]


@click.command()
@click.argument("what", metavar="MODEL|BUNDLE...", nargs=-1, required=True)
@options.cut
@options.dataset
@click.option(
    "--codecs",
    default="fp32,uq,sgq",
    help="What is compared: fp32, uq, pq, clio, topk, sgq, or CODEC:KEY=VALUE,...+GRADIENT (then with ; between them; "
    "NAME=CODEC:... names it). A bundle brings its own codec.",
)
@click.option(
    "--links",
    default="loopback,1mbit,10mbit,100mbit",
    help="Emulated lines, as 1mbit, 2mbit/10mbit (up/down), 10mbit+50ms (round trip), 10mbit+50ms+jitter=5ms or "
    "10mbit+stall=300ms@10s; loopback is none, and gives the compute-bound rate.",
)
@click.option("--in-flight", default="1", metavar="N,N", help="Batches under way; several compared.")
@click.option("--device", default="cpu", help="Board to export for; without --host it runs on this CPU.")
@options.provider
@click.option("--host", metavar="[USER@]BOARD", help="Run the device there, through ssh, as `edgekit deploy` does.")
@options.reached_by_ssh
@click.option("--board-data", metavar="DIR", help="Where the dataset's files are on the board (default: as --data).")
@click.option("--batch", default=32, help="Images per step.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    help="Measured in every cell, at least two batches.",
)
@click.option("--warm-up", default=3, help="Batches before that (fewer where they take so long).")
@click.option("--repeats", type=click.IntRange(1), default=3, help="Rounds, codecs in turn (A B A B).")
@click.option("--no-pin", is_flag=True, help="Do not give the device one processor and the server the others.")
@click.option("--server-threads", default=1, help="Threads of the back half on a CPU.")
@click.option("--torch-device", default="auto", help="Of the back half: cpu, cuda or auto.")
@click.option("--lr", default=0.02, help="The halves do learn while they are measured.")
@scaling.scaling
@to_accuracy.to_accuracy
@options.network
@options.seed
@click.option("--out", metavar="FILE", help="Write the record, for `edgekit report` and --compare.")
@click.option("--compare", metavar="RECORD", help="Show the differences from an earlier record.")
@options.as_json
def measure(**given: Any) -> None:
    """Measure images/s of MODEL with several codecs, over emulated links: how much faster, how much less traffic?

    Real device and server processes train with each other over an emulated link. Every combination is warmed up and
    measured --repeats times in turn. Reported: images/s trained, and encoded alone; latency; bytes by message kind;
    where the time went; processor time; memory; energy if the board shows it; speedups over fp32 and uq.
    `edgekit report FILE` draws charts of it. docs/measure.md describes the record.

    \b
    edgekit measure mobilenet_v1 --dataset cifar10 --data DIR --out measure.json
    edgekit measure vgg11 --links 1mbit,10mbit+50ms --codecs uq,sgq --in-flight 1,2,4
    edgekit measure vgg11 --codecs 'uq;mine=sgq:groups=4,bits=6,coding=context+dct:zone=3'
    edgekit measure bundle --links 2mbit/10mbit --compare measure.json
    edgekit measure mobilenet_v1 --device jetson-nano --host me@nano --links loopback,1mbit
    edgekit measure mobilenet_v1 --codecs sgq --links loopback --devices 1,2,4,8 --device-share 0.125
    edgekit measure vgg11_thin --to-accuracy 75,80 --epochs 30 --links 0.1mbit,1mbit --out to-accuracy.json

    With --host the connection to the board is an ssh tunnel, and --links are emulated at this end of it; "loopback" is
    the tunnel alone.

    With --devices nothing of this is measured, but how a fleet scales: each number of devices trains on the same
    images, from beginning to end, and shares one line. Reported: images/s, bytes, accuracy, and how busy the server is.

    With --to-accuracy one device trains from beginning to end with every method. Reported: seconds and bytes until the
    deployed network was that accurate over each link, or that it never was.
    """
    from edgekit.link.link import split_links
    from edgekit.measure import cells, compare, methods
    from edgekit.runtime.passes import check_offered

    if given["host"] is None:
        check_offered(given["provider"], "onnxruntime")
    options.check_writable(given["out"])
    to_accuracy.check_given(given)
    scaling.check_given(given)
    if given["to_accuracy"] is not None:
        to_accuracy.measure(given)
        return
    if given["devices"] is not None:
        scaling.measure(given)
        return
    _check_bundles(given["what"])
    earlier = compare.load(given["compare"]) if given["compare"] else None
    links = split_links(given["links"])
    in_flight = options.counts("in-flight", given["in_flight"])
    compared = methods.parse_list(given["codecs"])
    # Imported only now, because it takes seconds.
    from edgekit.launch.flags import as_flags
    from edgekit.measure.record import record

    screen = Console(stderr=True)
    say = functools.partial(screen.print, highlight=False, soft_wrap=True, markup=False)
    with tempfile.TemporaryDirectory() as scratch:
        chosen = _subjects(given, compared, scratch, say)
        device = {name: given[name] for name in ("dataset", "data", "limit", "seed", "provider")}
        server = {name: given[name] for name in ("lr", "seed", "server_threads", "torch_device")}
        plan = cells.Plan(
            tuple(each.method for each in chosen), {each.method.name: each.bundle.path for each in chosen},
            links, in_flight, given["repeats"], given["seconds"], given["warm_up"], given["batch"],
            as_flags(dict(device, data=given["board_data"] or given["data"])), as_flags(server),
            None if given["no_pin"] or given["host"] else cells.two_sides(),
        )  # fmt: skip
        plan.check()
        if earlier:
            compare.check_common(earlier, plan.bundles, plan.links, plan.in_flight)
        done: list[dict[str, Any]] = []
        machines: dict[str, Any] = {}
        failure: BaseException | None = None
        began = time.time()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=screen) as progress:
            task = progress.add_task("starting", total=sum(1 for _ in plan.cells()) + plan.repeats * len(chosen))

            def show(cell: dict[str, Any]) -> None:
                done.append(cell)
                progress.update(task, advance=1)
                where = f"over {cell['link']}, {cell['in_flight']} in flight" if "link" in cell else "encoding alone"
                say(f"{cell['codec']} {where}: {cell['images_per_s']:.1f} images/s")

            try:
                with _board(given, plan, say) as board:
                    cells.run(plan, machines, lambda name: progress.update(task, description=name), show, board)
            except (EdgekitError, KeyboardInterrupt) as error:
                failure = error  # what was measured until then is kept
        trained = [cell for cell in done if "link" in cell]
        if failure and not trained:
            raise failure
        result = record(
            _setting(given, plan, chosen[0].bundle),
            {each.method.name: each.described() for each in chosen},
            links,
            trained,
            [cell for cell in done if "link" not in cell],
            machines,
            ["edgekit", *sys.argv[1:]],
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            None if failure is None else str(failure) or "stopped",
        )
    if given["out"]:
        options.write_json(given["out"], result)
        click.echo(f"next: edgekit report {given['out']}", err=True)
    differences = compare.compare(result, earlier) if earlier else []
    if given["as_json"]:
        told = {"comparison": [each._asdict() for each in differences]} if earlier else {}
        options.print_json({**result, **told})
    else:
        _show(result, earlier, differences)
    if failure:
        raise failure


def _subjects(given: dict[str, Any], compared: "list[Method]", scratch: str, say: Say) -> "list[Subject]":
    """The bundles that WHAT names, or those of the one model that it names, written to `scratch`."""
    from edgekit.cli import settings
    from edgekit.export.settings import BoardSettings
    from edgekit.measure.subjects import carried, exported

    what = given["what"]
    if all(map(os.path.isdir, what)):
        return carried(what)
    if len(what) > 1:
        raise UsageError(f"{' '.join(what)}: expected one model, or bundles, which are folders")
    return exported(
        settings.network({**given, "model": what[0]}),
        compared,
        scratch,
        settings.data(given).load(given["seed"]),
        BoardSettings(given["device"], static_batch=given["batch"], provider=given["provider"]),
        seed=given["seed"],
        on_export=say,
    )


@contextlib.contextmanager
def _board(given: dict[str, Any], plan: "Plan", say: Say) -> Iterator["Board | None"]:
    """The board of --host, with every bundle of `plan`; None without --host."""
    if given["host"] is None:
        if given["board_data"]:
            raise UsageError("--board-data is of a board, and no --host is given")
        yield None
        return
    from edgekit.deploy.deployment import Settings
    from edgekit.measure.board import connected

    def show(event: dict[str, Any]) -> None:
        if event["event"] in ("step", "warning", "says"):
            say(f"{event.get('step', 'warning')}: {event['text']}")

    names = ("host", "ssh", "target", "python", "wheels", "environment")
    with connected(Settings("", None, **{name: given[name] for name in names}), show) as board:
        for bundle in plan.bundles.values():
            board.prepare(bundle)
        yield board


def _show(result: dict[str, Any], earlier: dict[str, Any] | None, differences: list[Any]) -> None:
    from edgekit.measure import compare

    console = wide(130)
    console.print(_rates(result))
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", soft_wrap=True)
    if earlier:
        for line in compare.other_settings(result, earlier):
            console.print(f"not the same: {line}", soft_wrap=True)
        console.print(_differences(differences))


def _check_bundles(what: tuple[str, ...]) -> None:
    """Raises UsageError for options that do not go with bundles, which have decided them already."""
    if all(map(os.path.isdir, what)):
        for name in ("codecs", "cut", "weights", "device", "input_shape", "mean", "std"):
            if options.was_given(name):
                flag = {"input_shape": "input"}.get(name, name)
                raise UsageError(f"--{flag} is of the export, and {' '.join(what)} was exported: leave it out")


def _setting(given: dict[str, Any], plan: "Plan", bundle: "Bundle") -> dict[str, Any]:
    from edgekit.runtime.backends.registry import BY_RUNTIME

    cores = plan.cores
    return {
        "model": bundle.model,
        "cut": bundle.cut,
        "feature": list(bundle.feature_shape),
        "dataset": given["dataset"],
        "limit": given["limit"],
        "batch": plan.batch,
        "in_flight": list(plan.in_flight),
        "device": bundle.device["name"],
        "host": given["host"],
        "backend": BY_RUNTIME[bundle.device["runtime"]] if given["host"] else "onnxruntime",
        "provider": given["provider"],
        "threads": {"device": 1, "server": given["server_threads"]},
        "cores": {"device": list(cores[0]), "server": list(cores[1])} if cores else None,
        "seconds": plan.seconds,
        "warm_up_steps": plan.warm_up,
        "repeats": plan.repeats,
        "lr": given["lr"],
        "seed": given["seed"],
    }


def _rates(record: dict[str, Any]) -> Table:
    """The table of results, a row each."""
    setting = record["setting"]
    title = f"{setting['model']} cut at {setting['cut']}, {setting['dataset']}, batches of {setting['batch']}"
    figures = numbers(
        "images/s\ntrained", "\nrange", "times\nfp32", "\nuq", "bytes\nup", "\ndown", "step\nms", "link-bound\nimages/s"
    )
    link, codec = Column("link", no_wrap=True), Column("codec", no_wrap=True)
    table = Table(link, *numbers("in\nflight"), codec, *figures, title=title)
    for result in record["results"]:
        rate, speedup = result["images_per_s"], result["speedup"]
        table.add_row(
            result["link"], str(result["in_flight"]), result["codec"], f"{rate['median']:.4g}",
            f"{rate['low']:.4g} to {rate['high']:.4g}" if rate["n"] > 1 else "",
            *(f"{speedup[base]['median']:.2f}" if base in speedup else "" for base in ("fp32", "uq")),
            f"{result['bytes_up_per_image']:.0f}", f"{result['bytes_down_per_image']:.0f}",
            f"{1e3 * result['latency_s']['p50']:.1f}",
            f"{result['link_bound_images_per_s']:.4g}" if result["link_bound_images_per_s"] else "",
        )  # fmt: skip
    return table


def _differences(differences: list[Any]) -> Table:
    heads = ("link", "in\nflight", "codec", "before", "now", "ratio", "")
    table = Table(*(Column(head, no_wrap=True) for head in heads), title="images/s trained, against the earlier record")
    for each in differences:
        verdict = {True: "within the spread", False: "outside the spread", None: "one repeat: no spread"}[each.within]
        row = each.link, str(each.in_flight), each.codec, f"{each.before:.4g}", f"{each.now:.4g}"
        table.add_row(*row, f"{each.now / each.before:.3f}", verdict)
    return table

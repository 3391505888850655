"""edgekit measure --devices: how a fleet scales"""

import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from edgekit.cli import options
from edgekit.cli.screen import numbers, wide
from edgekit.errors import EdgekitError, UsageError

if TYPE_CHECKING:
    from edgekit.measure.scaling import Plan

#: What is measured with --devices unless it is said: all of what `measure` compares would take days.
DEFAULTS = {"codecs": "sgq", "links": "loopback"}
#: Options of the other kind of measuring, by the names of their parameters.
OTHERS = ("host", "board_data", "seconds", "warm_up", "no_pin", "compare")
OWN = ("images", "mode", "sync_every", "device_share")

scaling = options.options(
    click.option(
        "--devices",
        metavar="N,N",
        help="Measure how a fleet scales, as 1,2,4,8: a whole training for each number "
        "(then --codecs is sgq and --links loopback, unless given).",
    ),
    click.option(
        "--images",
        type=click.IntRange(2),
        default=8192,
        help="Images that the devices of a fleet train on together, in whole epochs (with --devices).",
    ),
    click.option("--mode", default="sync", help="sync, async or sync,async (with --devices); see `edgekit train -h`."),
    click.option(
        "--sync-every",
        metavar="N|1epoch|30s",
        help="Average front halves so often, 0: never (with --devices; default: 1epoch).",
    ),
    click.option(
        "--device-share",
        type=float,
        metavar="S",
        help="Boards slower than a core: stop each device's process for a part of the time, so that it gets at most "
        "the share S of a core (with --devices).",
    ),
)


def check_given(given: dict[str, Any]) -> None:
    """UsageError for options of the one kind of measuring that are given for the other."""
    with_devices = given["devices"] is not None
    for name in OTHERS if with_devices else OWN:
        if options.was_given(name):
            told = "does not go with --devices" if with_devices else "is of --devices, which is not given"
            raise UsageError(f"--{name.replace('_', '-')} {told}: leave it out")


def measure(given: dict[str, Any]) -> None:
    """Measures the fleets that --devices lists, one whole training after the other, and shows and writes the record."""
    from edgekit.codecs.registry import feature_codec
    from edgekit.link.link import split_links
    from edgekit.measure import methods

    (model, *more) = given["what"]
    given = {**given, **{name: text for name, text in DEFAULTS.items() if not options.was_given(name)}}
    if more or os.path.isdir(model):
        raise UsageError(f"{' '.join(given['what'])}: with --devices expected one model, which is exported here")
    devices = options.counts("devices", given["devices"])
    in_flight = options.counts("in-flight", given["in_flight"])
    if len(in_flight) > 1:
        raise UsageError(f"--in-flight {given['in_flight']}: with --devices expected one number")
    if list(devices) != sorted(set(devices)):
        raise UsageError(f"--devices {given['devices']}: expected each number once, from few to many")
    links, compared = split_links(given["links"]), methods.parse_list(given["codecs"])
    modes = tuple(part.strip() for part in given["mode"].split(","))
    if len(set(modes)) < len(modes):
        raise UsageError(f"--mode {given['mode']}: expected each mode once")
    for method in compared:
        most = feature_codec(method.codec, method.config).stream().in_flight
        if most is not None and in_flight[0] > most:
            raise UsageError(f"{in_flight[0]} batches in flight: {method.name} takes at most {most}")
    plan = _plan({**given, "model": model}, devices, in_flight[0], compared, links, modes)
    _run(given, plan)


def _plan(
    given: dict[str, Any],
    devices: tuple[int, ...],
    in_flight: int,
    compared: list[Any],
    links: dict[str, Any],
    modes: tuple[str, ...],
) -> "Plan":
    from edgekit.cli import settings
    from edgekit.export.settings import BoardSettings
    from edgekit.launch.settings import Server
    from edgekit.measure.scaling import Plan, passes
    from edgekit.server.modes import FleetSettings

    data = settings.data(given)
    there = len(data.load(given["seed"]).dataset.train_labels)
    epochs, limit = passes(given["images"], there)
    least = 2 * max(devices)
    if limit < least:
        raise UsageError(f"{limit} images for {max(devices)} devices: expected at least {least}")
    plan = Plan(
        network=settings.network(given),
        data=data._replace(limit=limit if limit < there else data.limit),
        board=BoardSettings(given["device"], static_batch=given["batch"], provider=given["provider"]),
        devices=devices,
        methods=tuple(compared),
        links=links,
        modes=modes,
        repeats=given["repeats"],
        epochs=epochs,
        batch=given["batch"],
        in_flight=in_flight,
        server=Server(
            lr=given["lr"],
            server_threads=given["server_threads"],
            torch_device=given["torch_device"],
            fleet=FleetSettings(sync_every=given["sync_every"]),
        ),
        share=given["device_share"],
        seed=given["seed"],
    )
    plan.check()
    return plan


def _run(given: dict[str, Any], plan: "Plan") -> None:
    from edgekit import machine
    from edgekit.measure import scaling
    from edgekit.measure.scaling_record import record

    screen = Console(stderr=True)
    say = functools.partial(screen.print, highlight=False, soft_wrap=True, markup=False)
    setting, codecs = _setting(given, plan), {each.name: described(each) for each in plan.methods}
    say(
        f"each training: {plan.epochs * setting['limit']} images, {plan.epochs} "
        f"epoch{'' if plan.epochs == 1 else 's'} of {setting['limit']}, shared by the devices"
    )
    done: list[dict[str, Any]] = []
    steps: dict[str, tuple[int, int]] = {}
    failure: BaseException | None = None
    began = time.time()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[many]}"), TimeRemainingColumn()
    total = sum(1 for _ in plan.cells())
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("starting", total=total, many=f"0/{total}")

        def begin(name: str) -> None:
            steps.clear()
            progress.update(task, description=name)

        def see(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                described = codecs[plan.methods[len(done) % len(plan.methods)].name]
                described["config"], described["bundle"] = event["codec_config"], event["bundle"]
                described["formula_bytes_up_per_image"] = event["formula_bytes_up_per_image"]
                setting.update(cut=event["cut"], feature=event["feature"])
            elif event["event"] in ("connected", "progress", "epoch"):
                steps[event["device"]] = event["step"], event["steps"]
                share = sum(step for step, _ in steps.values()) / max(sum(of for _, of in steps.values()), 1)
                progress.update(task, completed=len(done) + share)

        def show(cell: dict[str, Any]) -> None:
            done.append(cell)
            progress.update(task, completed=len(done), many=f"{len(done)}/{total}")
            say(
                f"{cell['codec']} over {cell['link']}, {cell['mode']}, {cell['devices']} devices: "
                f"{cell['images_per_s']:.1f} images/s, server busy {cell['busy']['server']:.0%} of a core"
            )

        try:
            scaling.run(plan, begin, see, show)
        except (EdgekitError, KeyboardInterrupt) as error:
            failure = error  # what was measured until then is kept
    if failure and not done:
        raise failure
    result = record(
        setting,
        codecs,
        plan.links,
        done,
        machine.describe(),
        ["edgekit", *sys.argv[1:]],
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        None if failure is None else str(failure) or "stopped",
    )
    if given["out"]:
        options.write_json(given["out"], result)
        click.echo(f"next: edgekit report {given['out']}", err=True)
    if given["as_json"]:
        options.print_json(result)
    else:
        console = wide(150)
        console.print(table(result))
        for warning in result["warnings"]:
            console.print(f"warning: {warning}", soft_wrap=True)
    if failure:
        raise failure


def _setting(given: dict[str, Any], plan: "Plan") -> dict[str, Any]:
    """The "setting" of the record; the cut and the feature are known once a network is exported."""
    from edgekit.measure.scaling import cores

    images = plan.data.limit
    if images is None:
        images = len(plan.data.load(plan.seed).dataset.train_labels)
    return {
        "model": plan.network.name,
        "cut": plan.network.cut,
        "feature": None,
        "dataset": given["dataset"],
        "limit": images,
        "epochs": plan.epochs,
        "images": plan.epochs * images,
        "batch": plan.batch,
        "in_flight": plan.in_flight,
        "devices": list(plan.devices),
        "modes": list(plan.modes),
        "sync_every": given["sync_every"],
        "device": given["device"],
        "device_share": plan.share,
        "threads": {"device": 1, "server": given["server_threads"]},
        "cores": cores(),
        "repeats": plan.repeats,
        "lr": given["lr"],
        "seed": plan.seed,
    }


def described(method: Any) -> dict[str, Any]:
    """The entry of `method` in a record, before it is exported."""
    return {
        "method": method.text, "codec": method.codec, "config": method.config, "gradient": method.gradient,
        "formula_bytes_up_per_image": None, "bundle": None,
    }  # fmt: skip


def table(record: dict[str, Any]) -> Table:
    """The table of results, a row each."""
    setting = record["setting"]
    share = "" if setting["device_share"] is None else f", {setting['device_share']:g} of a core for each device"
    title = (
        f"{setting['model']} cut at {setting['cut']}, {setting['dataset']}, {setting['images']} images, "
        f"batches of {setting['batch']}, {setting['cores']} cores{share}"
    )
    figures = numbers(
        "devices", "images/s\nof all", "\nrange", "times the\nfewest", "of\nideal", "bytes\nup", "\ndown",
        "accuracy\n%", "busy, %\nserver", "\ndevice",
    )  # fmt: skip
    first, last = (Column(head, no_wrap=True) for head in ("link", "mode", "codec")), Column("binds", no_wrap=True)
    shown = Table(*first, *figures, last, title=title)
    for result in record["results"]:
        rate, speedup, busy = result["images_per_s"], result["speedup"], result["busy"]
        shown.add_row(
            result["link"], result["mode"], result["codec"], str(result["devices"]), f"{rate['median']:.4g}",
            f"{rate['low']:.4g} to {rate['high']:.4g}" if rate["n"] > 1 else "",
            f"{speedup['median']:.2f}" if speedup else "",
            f"{100 * result['efficiency']:.0f} %" if speedup else "",
            f"{result['bytes_up_per_image']:.0f}", f"{result['bytes_down_per_image']:.0f}",
            f"{result['accuracy']['median']:.2f}", f"{100 * busy['server']:.0f}", f"{100 * busy['device']:.0f}",
            result["binds"],
        )  # fmt: skip
    return shown

"""edgekit measure --to-accuracy: how long a whole training takes to get there"""

import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from edgekit.cli import options, scaling
from edgekit.cli.screen import wide
from edgekit.errors import EdgekitError, UsageError

if TYPE_CHECKING:
    from edgekit.measure.to_accuracy import Plan
    from edgekit.report import content

Row = dict[str, Any]
#: What is trained with --to-accuracy unless it is said: as `edgekit train` does, over lines that are thin.
DEFAULTS = {"links": "0.1mbit,1mbit,10mbit", "lr": None}
#: Options of the other kinds of measuring, by the names of their parameters.
OTHERS = ("devices", "host", "board_data", "seconds", "warm_up", "repeats", "no_pin", "compare", *scaling.OWN)
OWN = ("line", "epochs", "evaluate_every", "augment", "resume")

to_accuracy = options.options(
    click.option(
        "--to-accuracy",
        metavar="P,P",
        help="Measure the time until a whole training reaches P percent, as 75,80, for each method and link "
        "(then --links is 0.1mbit,1mbit,10mbit, and --lr that of `edgekit train`, unless given).",
    ),
    click.option(
        "--line",
        type=click.Choice(["computed", "measured"]),
        default="computed",
        help="Where seconds come from (with --to-accuracy). computed: each method trains once, without a line, and "
        "each link's seconds follow from its bytes. measured: it trains over each link, in real time.",
    ),
    click.option("--epochs", type=click.IntRange(1), default=10, help="Of each training (with --to-accuracy)."),
    click.option(
        "--evaluate-every",
        type=click.IntRange(1),
        default=1,
        help="Epochs between tests, the last one is always tested (with --to-accuracy).",
    ),
    options.augment,
    click.option(
        "--resume",
        is_flag=True,
        help="Keep the trainings that the file of --out has already (with --to-accuracy).",
    ),
)


def check_given(given: Row) -> None:
    """UsageError for options of one kind of measuring that are given for another."""
    asked = given["to_accuracy"] is not None
    for name in OTHERS if asked else OWN:
        if options.was_given(name):
            told = "does not go with --to-accuracy" if asked else "is of --to-accuracy, which is not given"
            raise UsageError(f"--{name.replace('_', '-')} {told}: leave it out")
    if given["resume"] and not given["out"]:
        raise UsageError("--resume continues the file that --out names, and --out is not given")


def accuracies(text: str) -> tuple[float, ...]:
    """The percentages of "75,80"; UsageError for anything else."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < each <= 100 for each in found) or len(set(found)) < len(found):
        raise UsageError(f"--to-accuracy {text}: expected percentages above 0, each once, as 75,80")
    return found


def measure(given: Row) -> None:
    """Trains with every method, and shows and writes the record; the file is written after each training."""
    given = {**given, **{name: value for name, value in DEFAULTS.items() if not options.was_given(name)}}
    wanted = accuracies(given["to_accuracy"])
    plan = _plan(given)
    from edgekit import machine
    from edgekit.measure.to_accuracy_record import resumed

    setting, codecs = _setting(given, plan), {each.name: scaling.described(each) for each in plan.methods}
    trainings: list[Row] = []
    if given["resume"] and os.path.exists(given["out"]):
        methods = {name: about["method"] for name, about in codecs.items()}
        earlier = resumed(given["out"], given["line"], setting, methods, plan.links, machine.describe())
        trainings = earlier["trainings"]
        codecs.update(earlier["codecs"])
        setting.update({name: earlier["setting"][name] for name in ("cut", "feature")})
    result, failure = _run(given, plan, wanted, setting, codecs, trainings)
    if given["as_json"]:
        options.print_json(result)
    else:
        _show(result)
    if given["out"]:
        click.echo(f"next: edgekit report {given['out']}", err=True)
    if failure:
        raise failure


def _plan(given: Row) -> "Plan":
    from edgekit.cli import settings
    from edgekit.export.settings import BoardSettings
    from edgekit.launch.settings import Server
    from edgekit.link.link import split_links
    from edgekit.measure.methods import parse_list
    from edgekit.measure.to_accuracy import Plan

    (model, *more) = given["what"]
    if more or os.path.isdir(model):
        raise UsageError(f"{' '.join(given['what'])}: with --to-accuracy expected one model, which is exported here")
    in_flight = options.counts("in-flight", given["in_flight"])
    if len(in_flight) > 1:
        raise UsageError(f"--in-flight {given['in_flight']}: with --to-accuracy expected one number")
    plan = Plan(
        network=settings.network({**given, "model": model}),
        data=settings.data(given),
        board=BoardSettings(given["device"], static_batch=given["batch"], provider=given["provider"]),
        methods=tuple(parse_list(given["codecs"])),
        links=split_links(given["links"]),
        measured=given["line"] == "measured",
        **{name: given[name] for name in ("epochs", "evaluate_every", "augment", "batch", "seed")},
        in_flight=in_flight[0],
        server=Server(**{name: given[name] for name in ("lr", "server_threads", "torch_device")}),
    )
    plan.check()
    return plan


def _setting(given: Row, plan: "Plan") -> Row:
    """The "setting" of the record; the cut and the feature are known once a network is exported."""
    from edgekit.export.models.weights import digest

    server, weights = plan.server, plan.network.weights
    return {
        "model": plan.network.name,
        "cut": plan.network.cut,
        "feature": None,
        "input": plan.network.input_shape,
        # What they are counts, not where they lie.
        "weights": None if weights is None else digest(weights),
        **{name: None if given[name] is None else list(given[name]) for name in ("mean", "std")},
        **{name: given[name] for name in ("dataset", "device", "provider")},
        "limit": len(plan.data.load(plan.seed).dataset.train_labels),
        **{name: getattr(plan, name) for name in ("epochs", "evaluate_every", "augment", "batch", "in_flight")},
        "threads": {"device": 1, "server": server.server_threads},
        **{name: getattr(server, name) for name in ("optimizer", "lr", "momentum", "weight_decay", "schedule")},
        "seed": plan.seed,
    }


def _run(
    given: Row, plan: "Plan", wanted: tuple[float, ...], setting: Row, codecs: Row, trainings: list[Row]
) -> tuple[Row, BaseException | None]:
    """The record after what is still missing in `trainings` was trained, and what cut it short."""
    from edgekit import machine
    from edgekit.measure.to_accuracy import described, train
    from edgekit.measure.to_accuracy_record import record

    screen = Console(stderr=True)
    say = functools.partial(screen.print, highlight=False, soft_wrap=True, markup=False)
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    known = {(each["codec"], each["link"]) for each in trainings}
    total = sum(1 for _ in plan.trainings())
    now = "", ""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[many]}"), TimeRemainingColumn()

    def made(failed: str | None) -> Row:
        command = ["edgekit", *sys.argv[1:]]
        return record(
            setting, given["line"], wanted, codecs, plan.links, trainings, machine.describe(), command, began, failed
        )

    def save(failed: str | None) -> None:
        if given["out"]:
            # Whole at any time: it may be all that is left.
            options.write_json(f"{given['out']}.part", made(failed))
            os.replace(f"{given['out']}.part", given["out"])

    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("starting", total=total, completed=len(trainings), many=f"{len(trainings)}/{total}")

        def begin(method: str, link: str | None) -> None:
            nonlocal now
            now = method, described(method, link)
            progress.update(task, description=now[1])

        def see(event: Row) -> None:
            if event["event"] == "start":
                about = codecs[now[0]]
                about["config"], about["bundle"] = event["codec_config"], event["bundle"]
                about["formula_bytes_up_per_image"] = event["formula_bytes_up_per_image"]
                setting.update(cut=event["cut"], feature=event["feature"])
            elif event["event"] in ("progress", "epoch"):
                progress.update(task, completed=len(trainings) + event["step"] / max(event["steps"], 1))
                if "accuracy" in event:
                    say(f"{now[1]}: epoch {event['epoch']} of {event['epochs']}, {event['accuracy']:.2f} %")

        def show(training: Row) -> None:
            trainings.append(training)
            progress.update(task, completed=len(trainings), many=f"{len(trainings)}/{total}")
            save(f"{len(trainings)} of {total} trainings" if len(trainings) < total else None)

        failure: BaseException | None = None
        try:
            train(plan, known, begin, see, show)
        except (EdgekitError, KeyboardInterrupt) as error:
            failure = error  # what was trained until then is kept
    if failure and not trainings:
        raise failure
    failed = None if failure is None else str(failure) or "stopped"
    save(failed)
    return made(failed), failure


def _show(result: Row) -> None:
    """The table of the report, for a terminal."""
    from edgekit.report.build import build
    from edgekit.report.records import Records, ToAccuracy

    report = build(Records([], [], [], [], [ToAccuracy("", result)]), ["to-accuracy"])
    console = wide(130)
    for section in report.sections:
        for each in section.tables:
            console.print(_table(each))
            console.print(each.note, soft_wrap=True)
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", soft_wrap=True)


def _table(table: "content.Table") -> Table:
    from edgekit.report.numbers import text

    heads = [f"{each.name}\n{each.unit}" if each.unit else each.name for each in table.columns]
    shown = Table(title=table.title)
    for head, each in zip(heads, table.columns, strict=True):
        shown.columns.append(Column(head, justify="right" if each.number else "left", no_wrap=True))
    for row in table.rows:
        shown.add_row(*(text(cell, each.suffix) for cell, each in zip(row, table.columns, strict=True)))
    return shown

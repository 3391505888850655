"""The output of `edgekit train`: a bar per device while it runs, and a table at the end."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

Event = dict[str, Any]


@contextlib.contextmanager
def live_progress(console: Console, run: Event) -> Iterator[Callable[[Event], None]]:
    """Shows one line per device; what it gives is called with their events. Finished epochs scroll by above."""
    devices = f"{run['devices']} device{'' if run['devices'] == 1 else 's'}"
    console.print(
        f"{run['model']} cut at {run['cut']}, feature {'x'.join(map(str, run['feature']))}, "
        f"codec {_codec(run)}, {devices}, {run['dataset']}"
    )
    bars: dict[str, TaskID] = {}
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:

        def show(event: Event) -> None:
            if event["event"] == "tested" and run["devices"] > 1:
                best = ", the best so far" if event["best"] else ""
                console.print(
                    f"epoch {event['epoch']}: test accuracy {event['accuracy']:.2f} % on {event['images']} images of "
                    f"{event['devices']} device{'' if event['devices'] == 1 else 's'}{best}",
                    soft_wrap=True,
                )
            elif event["event"] == "opened" and event["provider"] != run["provider"]:
                told = f"{event['device']} learns on provider {event['provider']}, not {run['provider']}: "
                console.print(told + event["reason"], style="yellow", soft_wrap=True)
            elif event["event"] == "warned" and event["process"] == "server":
                console.print(f"{event['device']}: {event['warning']}", style="yellow", soft_wrap=True)
            elif event["event"] == "not_kept":
                console.print(f"{event['process']}: {event['reason']}", style="red", soft_wrap=True)
            elif event["event"] == "quarantined":
                console.print(f"{event['device']} is in quarantine: {event['reason']}", style="red", soft_wrap=True)
            elif event["event"] in ("progress", "epoch"):
                name = event["device"]
                if name not in bars:
                    bars[name] = progress.add_task(name, total=event["steps"], text="")
                text = f"epoch {event['epoch']}/{event['epochs']}, {_numbers(event)}"
                progress.update(bars[name], completed=event["step"], text=text)
                if event["event"] == "epoch":
                    tested = f", test accuracy {event['accuracy']:.2f} %" if "accuracy" in event else ""
                    console.print(f"{name} {text}{tested}", soft_wrap=True)

        yield show


def _codec(run: Event) -> str:
    config = ", ".join(f"{key} {value}" for key, value in run["codec_config"].items())
    return f"{run['codec']} ({config})" if config else str(run["codec"])


def _numbers(event: Event) -> str:
    images = max(event["images"], 1)
    return (
        f"{event['images_per_s']:.0f} images/s, loss {event['loss']:.3f}, "
        f"{event['bytes_up'] / images:.0f} B up, {event['bytes_down'] / images:.0f} B down an image"
    )


def result_table(summary: Event) -> Table:
    """The table of a finished run: accuracy, bytes of frames and by formula, speed, and where the time went."""
    table = Table(
        title=f"{summary['model']} cut at {summary['cut']}, {summary['dataset']}, {summary['epochs']} epochs",
        show_header=False,
    )
    fp32 = 4 * math.prod(summary["feature"])
    table.add_row("codec", _codec(summary))
    for name, text in _accuracies(summary):
        table.add_row(name, text)
    for way in ("up", "down"):
        n = summary[f"bytes_{way}_per_image"]
        table.add_row(f"{way}, measured", f"{n:.1f} B an image, {fp32 / n:.1f}x below the {fp32} B of an fp32 feature")
    formula = summary["formula_bytes_up_per_image"]
    table.add_row("up, by formula", f"{formula:.1f} B an image, {fp32 / formula:.1f}x below fp32; codes alone")
    if summary["augment"]:
        table.add_row("augmentation", summary["augment"])
    if summary["noise_filling"]:
        table.add_row("noise filling", summary["noise_filling"])
    off = summary["gradient_deviation"]
    table.add_row("gradient", f"{summary['calibrate']}; what arrives is off by {off:.3f} of its length, in the mean")
    if "gradient_error" in summary:
        found = f"{summary['gradient_error']:.3f} in the mean, at most {summary['largest_error']:.3f}"
        table.add_row("its error", f"that of the front half's gradient, estimated: {found}")
    table.add_row("speed", f"{summary['images_per_s']:.0f} images/s, all devices")
    seconds = summary["seconds"]
    parts = ("device_compute", "encode", "network", "server")
    split = ", ".join(f"{part.replace('_', ' ')} {seconds[part]:.1f} s" for part in parts)
    table.add_row(
        "time of a device", f"{split}; {seconds['train']:.1f} s in all, then {seconds['evaluate']:.1f} s of tests"
    )
    for name, text in _fleet(summary):
        table.add_row(name, text)
    return table


def _accuracies(summary: Event) -> Iterator[tuple[str, str]]:
    """Rows on the accuracy of the network at the end: of all devices, of each, of each class."""
    tested = sum(summary["images_tested_by_class"])
    yield (
        "accuracy",
        (
            f"{summary['accuracy']:.2f} % of {tested} test images at the end; mean over classes "
            f"{summary['balanced_accuracy']:.2f} %"
        ),
    )
    yield (
        "loss",
        f"training {summary['loss']:.3f}, test {summary['test_loss']:.3f}"
        + (
            f", validation {summary['validation_loss']:.3f} ({summary['validation_accuracy']:.2f} %)"
            if "validation_loss" in summary
            else ""
        ),
    )
    devices = summary["accuracy_by_device"]
    if len(devices) > 1:
        yield "by device", _some([f"{name} {value:.2f} %" for name, value in devices.items()])
    known = [(n, value) for n, value in enumerate(summary["accuracy_by_class"]) if value is not None]
    worst = sorted(known, key=lambda each: each[1])[:3]
    names = summary.get("class_names") or [str(n) for n in range(len(summary["accuracy_by_class"]))]
    yield "worst classes", ", ".join(f"{names[n]} {value:.2f} %" for n, value in worst)


def _fleet(summary: Event) -> Iterator[tuple[str, str]]:
    """Rows on how the devices were kept together, and on those that were not."""
    fleet, quarantined = summary["fleet"], summary["quarantined"]
    if summary["devices"] > 1:
        rounds = f"{fleet['rounds']} rounds" if fleet["rounds"] else "front halves not averaged"
        late = f", {fleet['late_updates']} updates too late" if fleet["late_updates"] else ""
        short = f", {fleet['steps_without_some']} without some device" if fleet["steps_without_some"] else ""
        yield "fleet", f"{summary['mode']}: {fleet['steps']} steps{short}, {rounds}{late}"
    again = "the same seed gives the same weights again, bit for bit" if fleet["repeatable"] else (
        "another run with this seed may give other weights"
    )  # fmt: skip
    yield "repeatable", again
    for device, reason in quarantined.items():
        yield "[red]in quarantine[/red]", f"{device}: {reason}"


def _some(texts: list[str], most: int = 8) -> str:
    """The first of `texts`, and how many more there are."""
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more

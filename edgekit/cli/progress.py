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
            if event["event"] not in ("progress", "epoch"):
                return
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
    table.add_row("accuracy", f"{summary['accuracy']:.2f} %, mean over devices, whole test set")
    for way in ("up", "down"):
        n = summary[f"bytes_{way}_per_image"]
        table.add_row(f"{way}, measured", f"{n:.1f} B an image, {fp32 / n:.1f}x below the {fp32} B of an fp32 feature")
    formula = summary["formula_bytes_up_per_image"]
    table.add_row("up, by formula", f"{formula:.1f} B an image, {fp32 / formula:.1f}x below fp32; codes alone")
    if summary["noise_filling"]:
        table.add_row("noise filling", summary["noise_filling"])
    off = summary["gradient_deviation"]
    table.add_row("gradient", f"{summary['calibrate']}; what arrives is off by {off:.3f} of its length, in the mean")
    table.add_row("speed", f"{summary['images_per_s']:.0f} images/s, all devices")
    seconds = summary["seconds"]
    parts = ("device_compute", "encode", "network", "server")
    split = ", ".join(f"{part.replace('_', ' ')} {seconds[part]:.1f} s" for part in parts)
    table.add_row(
        "time of a device", f"{split}; {seconds['train']:.1f} s in all, then {seconds['evaluate']:.1f} s of tests"
    )
    return table

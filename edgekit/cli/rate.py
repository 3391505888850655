"""Rate control at the command line: the goal from the options, progress while measuring, and the table."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column, Table

from edgekit.cli import options, screen

if TYPE_CHECKING:
    from edgekit.codecs.base import FeatureCodec
    from edgekit.export.rate.choose import Goal

#: Options that may not be given when a rate is to be chosen, which decides them.
CHOSEN = ("groups", "bits", "gradient_codec")


def wanted(given: dict[str, Any]) -> bool:
    """Whether a rate is to be chosen. UsageError for options that contradict that, or that need it."""
    goals = [name for name in ("target_bytes", "max_accuracy_drop") if given[name] is not None]
    if len(goals) > 1:
        raise click.UsageError("give one of --target-bytes and --max-accuracy-drop")
    if given["rate_plot"] is not None:
        options.check_writable(given["rate_plot"])
        if not goals:
            raise click.UsageError("--rate-plot draws what --target-bytes or --max-accuracy-drop choose from: give one")
    for name in CHOSEN if goals else ():
        if options.was_given(name):
            raise click.UsageError(
                f"--{name.replace('_', '-')} is chosen by --{goals[0].replace('_', '-')}: leave one of them out"
            )
    return bool(goals)


def codec(given: dict[str, Any]) -> "FeatureCodec":
    """The feature codec of the options; when a rate is to be chosen, its groups and bits are not decided yet."""
    from edgekit.codecs.registry import feature_codec

    coding = given["coding"] or (options.CODING if given["codec"] == "sgq" else None)
    config = options.codec_config(
        given["codec"], given["bits"], given["groups"], given["grouping"], given["weighted"], coding
    )
    return feature_codec(given["codec"], config)


@contextmanager
def goal(given: dict[str, Any]) -> Iterator["Goal | None"]:
    """The goal of the options, with its progress shown on standard error; None when they have none."""
    if not wanted(given):
        yield None
        return
    from edgekit.export.rate.choose import Goal

    with screen.counting("measuring ") as progress:
        yield Goal(given["target_bytes"], given["max_accuracy_drop"], given["batch"], progress)


def show(console: Console, rate: dict[str, Any] | None, network: str, plot: str | None) -> None:
    """Prints the candidates that `rate` was chosen from for `network`, and draws them to `plot`, if one was chosen."""
    from edgekit.export.rate.chart import draw

    if rate is None:
        return
    if plot:
        draw(plot, rate, f"{network}: {rate['bytes']:.0f} B a training image")
    console = screen.wide(110, console.file)
    console.print(_table(rate))
    images = rate["images"]
    notes = [
        "->: chosen; error: how far decoded features are off, deviation: gradients that arrive, both in lengths of "
        "what was sent",
        f"measured on {images} images that no codebook comes from, in batches of {rate['batch']}, whole frames; "
        "codebook updates: at least what learning is expected to move",
    ]
    rounds = rate["rounds"]
    if any(rounds.values()):
        told = f"rounds among the devices take {rounds['up']:.1f} B an image up and {rounds['down']:.1f} down besides"
        notes.append(f"{told}, as rehearsed on these images before training")
    if rate["not_measured"]:
        notes.append(f"not measured, being far too large: {rate['not_measured']} candidates")
    if rate["accuracy"] is not None:
        notes.append(
            f"accuracy without codec {rate['accuracy']:.2f} %; one image is {100 / images:.2g} points, --calibration "
            "takes more of them; training with the codec closes part of the gap"
        )
    console.print("\n".join(notes), soft_wrap=True)


def _table(rate: dict[str, Any]) -> Table:
    # The accuracy of an untrained network would mean nothing.
    trained = rate["accuracy"] is not None
    heads = ["groups", "bits", "up", "codebook", "error", *(["accuracy"] if trained else []), "down", "deviation"]
    columns = Column("", no_wrap=True), *screen.numbers(*heads), Column("gradient", no_wrap=True)
    table = Table(*columns, title="rates, bytes a training image", box=None, pad_edge=False)
    for up in rate["uplinks"]:
        cells = [str(up["groups"]), str(up["bits"]), f"{up['bytes']:.1f}", f"{up['update_bytes']:.1f}"]
        cells += [f"{up['error']:.3f}", *([f"{up['accuracy']:.2f}"] if trained else [])]
        chosen = (up["groups"], up["bits"]) == (rate["groups"], rate["bits"])
        # All gradient codecs that were tried with the chosen uplink; with another uplink, the smallest.
        downs = up["downlinks"] if chosen else up["downlinks"][-1:]
        for i, down in enumerate(downs or [None]):
            last = [f"{down['bytes']:.1f}", f"{down['deviation']:.2f}", down["policy"]] if down else []
            best = chosen and down is not None and down["policy"] == rate["gradient"]
            table.add_row(
                "->" if best else "",
                *(cells if i == 0 or best else [""] * len(cells)),
                *last,
                style="bold" if best else None,
            )
    return table

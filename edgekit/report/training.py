"""The sections on training runs: accuracy over time and over bytes, losses, and the state of their codebooks."""

from typing import NamedTuple

from edgekit.report.content import Cell, Column, Plot, Section, Series, Table, text_columns
from edgekit.report.epochs import Epoch, epochs
from edgekit.report.names import named_runs, short, subject
from edgekit.report.palette import colours
from edgekit.report.records import Records


class Curve(NamedTuple):
    """One run: its epochs, its name and its colour."""

    name: str
    about: str
    colour: int
    epochs: list[Epoch]


#: Field of `Epoch` -> the label of its axis.
LABELS = {
    "number": "epoch", "seconds": "training time, s", "megabytes": "sent both ways by all devices, MB",
    "accuracy": "test accuracy, %", "perplexity": "perplexity, codewords",
    "distortion": "distortion, share of variance", "loss": "training loss", "test_loss": "test loss",
    "validation_loss": "validation loss",
}  # fmt: skip


def convergence(records: Records) -> Section | None:
    """The section on test accuracy, over training time and over the bytes of both directions."""
    text = (
        "A point per epoch that ended with a test, over the test images of all devices; records of older versions: the "
        "mean over the devices. Time is training alone: start-up and tests are left out."
    )
    charts = {"Accuracy over time": ("seconds", "accuracy"), "Accuracy over bytes": ("megabytes", "accuracy")}
    columns = {
        "number": Column("epochs"), "accuracy": Column("accuracy", "%"), "seconds": Column("training time", "s"),
        "megabytes": Column("sent both ways", "MB"),
    }  # fmt: skip
    return _section("convergence", "Convergence", text, _known(_curves(records), "accuracy"), charts, columns)


def losses(records: Records) -> Section | None:
    """The section on the losses of training, validation and test images over the epochs."""
    text = (
        "Mean cross entropy over images. The training loss is that of the batches as they were trained on, the others "
        "are of the deployed pipeline. A loss that is no number any more is left out."
    )
    curves = _known(_curves(records), "loss")
    names = ("loss", "validation_loss", "test_loss")
    charts = {LABELS[name].capitalize(): ("number", name) for name in names}
    columns = {"number": Column("epochs"), **{name: Column(LABELS[name]) for name in names}}
    return _section("loss", "Losses", text, curves, charts, columns)


def codebooks(records: Records) -> Section | None:
    """The section on codebooks: perplexity and distortion over the epochs."""
    text = (
        "Perplexity is how many codewords are in even use: near their number is good, near 1 is a collapsed codebook. "
        "Distortion is the squared error of the decoded feature over its variance."
    )
    # The state of the codebooks is shown where an epoch ended with a test, as its accuracy is.
    known = _known(_known(_curves(records), "accuracy"), "perplexity")
    charts = {"Perplexity": ("number", "perplexity"), "Distortion": ("number", "distortion")}
    heads = {"number": "epoch", "perplexity": "perplexity", "distortion": "distortion", "dead": "dead codewords"}
    columns = {key: Column(head) for key, head in heads.items()}
    return _section("codebooks", "Codebook health", text, known, charts, columns)


def _known(curves: list[Curve], name: str) -> list[Curve]:
    """`curves` with those epochs alone whose field `name` is known."""
    return [curve._replace(epochs=[each for each in curve.epochs if getattr(each, name) is not None])
            for curve in curves]  # fmt: skip


def _section(
    name: str, title: str, text: str, curves: list[Curve], charts: dict[str, tuple[str, str]], last: dict[str, Column]
) -> Section | None:
    """The section of `curves`. `charts`: title -> fields of `Epoch` along x and y; `last`: those shown of the last."""
    curves = [curve for curve in curves if curve.epochs]
    plots = [
        _plot(f"{chart}: {about}", x, y, [curve for curve in curves if curve.about == about])
        for about in dict.fromkeys(curve.about for curve in curves)
        for chart, (x, y) in charts.items()
    ]
    rows: list[list[Cell]] = [
        [curve.about, curve.name, *(getattr(curve.epochs[-1], key) for key in last)] for curve in curves
    ]
    table = Table("At the end", [*text_columns("trained", "run"), *last.values()], rows)
    return Section(name, title, text, [table], [plot for plot in plots if plot.series]) if rows else None


def _plot(title: str, x: str, y: str, curves: list[Curve]) -> Plot:
    series = []
    for curve in _known(curves, y):
        if curve.epochs:
            along, up = ([getattr(epoch, key) for epoch in curve.epochs] for key in (x, y))
            series.append(Series(curve.name, curve.colour, along, up))
    log = x == "megabytes" and all(value > 0 for each in series for value in each.x)
    return Plot(title, LABELS[x], LABELS[y], series, log_x=log)


def _curves(records: Records) -> list[Curve]:
    runs = named_runs(records.trainings)
    found = []
    for about in dict.fromkeys(subject(each.run) for _, each in runs):
        mine = [(name, each) for name, each in runs if subject(each.run) == about]
        for (name, each), colour in zip(mine, colours(short(each.run["codec"]) for _, each in mine), strict=True):
            found.append(Curve(name, about, colour, epochs(each)))
    return found

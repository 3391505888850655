"""The sections on training runs: accuracy over time and over bytes, and the state of their codebooks."""

from typing import NamedTuple

from edgekit.report.content import Column, Plot, Section, Series, Table, text_columns
from edgekit.report.names import named_runs, short, subject
from edgekit.report.palette import colours
from edgekit.report.records import Records, Training


class Epoch(NamedTuple):
    """The end of an epoch: means over all devices, but the sum of their megabytes."""

    number: int
    seconds: float
    megabytes: float
    accuracy: float
    perplexity: float | None
    distortion: float | None
    dead: float | None


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
    "distortion": "distortion, share of variance",
}  # fmt: skip


def convergence(records: Records) -> Section | None:
    """The section on test accuracy, over training time and over the bytes of both directions."""
    text = "A point per epoch, the mean over the devices. Time is training alone: start-up and tests are left out."
    charts = {"Accuracy over time": ("seconds", "accuracy"), "Accuracy over bytes": ("megabytes", "accuracy")}
    columns = {
        "number": Column("epochs"), "accuracy": Column("accuracy", "%"), "seconds": Column("training time", "s"),
        "megabytes": Column("sent both ways", "MB"),
    }  # fmt: skip
    return _section("convergence", "Convergence", text, _curves(records), charts, columns)


def codebooks(records: Records) -> Section | None:
    """The section on codebooks: perplexity and distortion over the epochs."""
    text = (
        "Perplexity is how many codewords are in even use: near their number is good, near 1 is a collapsed codebook. "
        "Distortion is the squared error of the decoded feature over its variance."
    )
    known = [
        curve._replace(epochs=[epoch for epoch in curve.epochs if epoch.perplexity is not None])
        for curve in _curves(records)
    ]
    charts = {"Perplexity": ("number", "perplexity"), "Distortion": ("number", "distortion")}
    heads = {"number": "epoch", "perplexity": "perplexity", "distortion": "distortion", "dead": "dead codewords"}
    columns = {key: Column(head) for key, head in heads.items()}
    return _section("codebooks", "Codebook health", text, known, charts, columns)


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
    rows = [[curve.about, curve.name, *(getattr(curve.epochs[-1], key) for key in last)] for curve in curves]
    table = Table("At the end", [*text_columns("trained", "run"), *last.values()], rows)
    return Section(name, title, text, [table], plots) if rows else None


def _plot(title: str, x: str, y: str, curves: list[Curve]) -> Plot:
    series = []
    for curve in curves:
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
            found.append(Curve(name, about, colour, _epochs(each)))
    return found


def _epochs(training: Training) -> list[Epoch]:
    """The epochs that all devices of the run have finished, with a test at their end."""
    devices = sorted({event["device"] for event in training.epochs})
    found = []
    seconds = dict.fromkeys(devices, 0.0)
    images = dict.fromkeys(devices, 0.0)
    for number in sorted({event["epoch"] for event in training.epochs}):
        events = {event["device"]: event for event in training.epochs if event["epoch"] == number}
        for device, event in events.items():
            seconds[device] += max(event["images"] - images[device], 0.0) / max(event["images_per_s"], 1e-9)
            images[device] = event["images"]
        accuracies = [event["accuracy"] for event in events.values() if event.get("accuracy") is not None]
        if len(accuracies) == len(devices):
            sent = sum(event["bytes_up"] + event["bytes_down"] for event in events.values()) / 1e6
            health = [
                _mean([event["codebook"].get(key) for event in events.values() if event.get("codebook")])
                for key in ("perplexity", "distortion", "dead_codewords")
            ]
            accuracy = sum(accuracies) / len(accuracies)
            found.append(Epoch(number, sum(seconds.values()) / len(devices), sent, accuracy, *health))
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

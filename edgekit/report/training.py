"""The sections on training runs: accuracy over time and over bytes, and the state of their codebooks."""

from typing import NamedTuple

from edgekit.report.content import Cell, Chart, Column, Plot, Section, Series, Table
from edgekit.report.names import run_names, short, subject
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


def convergence(records: Records) -> Section | None:
    """The section on test accuracy, over training time and over the bytes of both directions."""
    curves = _curves(records)
    charts: list[Chart] = []
    for about in dict.fromkeys(curve.about for curve in curves):
        mine = [curve for curve in curves if curve.about == about]
        by_time = [_series(curve, [epoch.seconds for epoch in curve.epochs]) for curve in mine]
        by_bytes = [_series(curve, [epoch.megabytes for epoch in curve.epochs]) for curve in mine]
        charts.append(Plot(f"Accuracy over time: {about}", "training time, s", "test accuracy, %", by_time))
        label = "sent both ways by all devices, MB"
        log = all(x > 0 for each in by_bytes for x in each.x)
        charts.append(Plot(f"Accuracy over bytes: {about}", label, "test accuracy, %", by_bytes, log_x=log))
    rows: list[list[Cell]] = [
        [curve.about, curve.name, last.number, last.accuracy, last.seconds, last.megabytes]
        for curve in curves
        for last in curve.epochs[-1:]
    ]
    columns = [Column("trained", number=False), Column("run", number=False), Column("epochs")]
    columns += [Column("accuracy", "%"), Column("training time", "s"), Column("sent both ways", "MB")]
    text = "A point per epoch, the mean over the devices. Time is training alone: start-up and tests are left out."
    return Section("convergence", "Convergence", text, [Table("At the end", columns, rows)], charts) if rows else None


def codebooks(records: Records) -> Section | None:
    """The section on codebooks: perplexity and distortion over the epochs."""
    curves = [curve for curve in _curves(records) if any(epoch.perplexity is not None for epoch in curve.epochs)]
    charts: list[Chart] = []
    rows: list[list[Cell]] = []
    for about in dict.fromkeys(curve.about for curve in curves):
        for what, label in (("perplexity", "perplexity, codewords"), ("distortion", "distortion, share of variance")):
            series = []
            for curve in curves:
                found = [(epoch.number, getattr(epoch, what)) for epoch in curve.epochs if curve.about == about]
                points = [(x, y) for x, y in found if y is not None]
                if points:
                    series.append(Series(curve.name, curve.colour, [x for x, _ in points], [y for _, y in points]))
            charts.append(Plot(f"{what.capitalize()}: {about}", "epoch", label, series))
    for curve in curves:
        last = [epoch for epoch in curve.epochs if epoch.perplexity is not None][-1]
        rows.append([curve.about, curve.name, last.number, last.perplexity, last.distortion, last.dead])
    columns = [Column("trained", number=False), Column("run", number=False), Column("epoch"), Column("perplexity")]
    columns += [Column("distortion"), Column("dead codewords")]
    text = (
        "Perplexity is how many codewords are in even use: near their number is good, near 1 is a collapsed codebook. "
        "Distortion is the squared error of the decoded feature over its variance."
    )
    return Section("codebooks", "Codebook health", text, [Table("At the end", columns, rows)], charts) if rows else None


def _curves(records: Records) -> list[Curve]:
    runs = [(name, each) for name, each in zip(run_names(records.trainings), records.trainings, strict=True)]
    found = []
    for about in dict.fromkeys(subject(each) for _, each in runs):
        mine = [(name, each) for name, each in runs if subject(each) == about]
        for (name, each), colour in zip(mine, colours(short(each.run["codec"]) for _, each in mine), strict=True):
            found.append(Curve(name, ", ".join(about), colour, _epochs(each)))
    return [curve for curve in found if curve.epochs]


def _epochs(training: Training) -> list[Epoch]:
    """The epochs that all devices of the run have finished."""
    devices = sorted({event["device"] for event in training.epochs})
    found = []
    seconds = dict.fromkeys(devices, 0.0)
    images = dict.fromkeys(devices, 0.0)
    for number in sorted({event["epoch"] for event in training.epochs}):
        events = {event["device"]: event for event in training.epochs if event["epoch"] == number}
        for device, event in events.items():
            seconds[device] += max(event["images"] - images[device], 0.0) / max(event["images_per_s"], 1e-9)
            images[device] = event["images"]
        if len(events) == len(devices):
            sent = sum(event["bytes_up"] + event["bytes_down"] for event in events.values()) / 1e6
            health = [
                _mean([event["codebook"].get(key) for event in events.values() if event.get("codebook")])
                for key in ("perplexity", "distortion", "dead_codewords")
            ]
            accuracy = sum(event["accuracy"] for event in events.values()) / len(events)
            found.append(Epoch(number, sum(seconds.values()) / len(devices), sent, accuracy, *health))
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _series(curve: Curve, x: list[float]) -> Series:
    return Series(curve.name, curve.colour, x, [epoch.accuracy for epoch in curve.epochs])

"""The section on accuracy against bytes, from rows of `bench/accuracy.py` and from finished training runs."""

from typing import NamedTuple

from edgekit.report.content import Chart, Column, Plot, Section, Spread, Table, text_columns
from edgekit.report.names import ended_runs, short, subject
from edgekit.report.palette import colours
from edgekit.report.records import Records
from edgekit.report.results import spread_series


class Point(NamedTuple):
    """The result of one method, or of one run."""

    name: str
    codec: str
    epochs: int | None
    accuracy: Spread
    bytes_up: float
    bytes_down: float
    formula_bytes_up: float | None


def section(records: Records) -> Section | None:
    """A table and a chart per model and dataset."""
    points = _points(records)
    tables = [_table(about, mine) for about, mine in points.items()]
    charts = [_chart(about, mine) for about, mine in points.items() if len(mine) > 1]
    text = (
        "Accuracy on the whole test set, of the pipeline as it is deployed; in brackets the worst and the best seed. "
        "Bytes per training image are measured at the frame; the papers' formula stands apart."
    )
    return Section("accuracy", "Accuracy against bytes", text, tables, charts) if points else None


def _points(records: Records) -> dict[str, list[Point]]:
    """Text of model, dataset and number of images -> points."""
    points = []
    for row in (row for table in records.accuracies for row in table.rows):
        seeds = [*(row.get("accuracies") or []), row["accuracy"]]
        accuracy = Spread(row["accuracy"], min(seeds), max(seeds))
        sizes = row["bytes_up"], row["bytes_down"], row.get("formula_bytes_up")
        method = row["method"].replace("+none", "")
        points.append((row, Point(method, row["codec"], row["n_epochs"], accuracy, *sizes)))
    for name, run, end in ended_runs(records):
        accuracy = Spread(end["accuracy"], end["accuracy"], end["accuracy"])
        sizes = end["bytes_up_per_image"], end["bytes_down_per_image"], end.get("formula_bytes_up_per_image")
        points.append((run, Point(name, run["codec"], run.get("epochs"), accuracy, *sizes)))
    found: dict[str, list[Point]] = {}
    for source, point in points:
        images = f", {source['limit']} images" if source.get("limit") else ""
        found.setdefault(subject(source) + images, []).append(point)
    return found


def _table(about: str, points: list[Point]) -> Table:
    rows = [
        [each.name, each.epochs, each.accuracy, each.bytes_up, each.bytes_down, each.bytes_up + each.bytes_down,
         each.formula_bytes_up]
        for each in points
    ]  # fmt: skip
    sizes = [Column(head, "B") for head in ("up", "down", "both ways", "up by formula")]
    columns = [*text_columns("method"), Column("epochs"), Column("accuracy", "%"), *sizes]
    return Table(f"Accuracy against bytes: {about}", columns, rows)


def _chart(about: str, points: list[Point]) -> Chart:
    lengths = len({each.epochs for each in points}) > 1
    series = []
    for each, colour in zip(points, colours(short(each.codec) for each in points), strict=True):
        size = each.bytes_up + each.bytes_down
        if size > 0:
            epochs = f", {each.epochs} epochs"
            name = each.name + (epochs if lengths and each.epochs and epochs not in each.name else "")
            series.append(spread_series(name, colour, [(size, each.accuracy)]))
    x_label = "bytes per image, both ways, measured"
    return Plot(f"Accuracy against bytes: {about}", x_label, "test accuracy, %", series, log_x=True)

"""The section on the time to an accuracy: seconds and bytes until each method got there, and the curves to it."""

from edgekit.report.content import Cell, Chart, Column, Plot, Section, Series, Table, text_columns
from edgekit.report.names import named_to_accuracies, short
from edgekit.report.numbers import number
from edgekit.report.palette import colours
from edgekit.report.records import Records, Row, ToAccuracy

#: The place of the dashed lines at the accuracies that were asked for.
DASHED = 2
#: What seconds are, by a record's "line".
ABOUT = {
    "computed": "Seconds are computed: those of a training without a line, and its bytes at the line's rates, and a "
    "round trip for each batch.",
    "measured": "Seconds are measured: the trainings ran over the emulated line.",
}
#: What is told besides where the trainings themselves were no such processes.
ABOUT_RATES = " The trainings ran in one process; what an image takes without a line was measured apart."


def section(records: Records) -> Section | None:
    """The section: for each record a table, a chart for each link, and one over bytes."""
    named = [(name, record) for name, record in named_to_accuracies(records) if record.data["results"]]
    text = (
        "Whole trainings, of one device. An accuracy is reached in the first epoch whose test, of the deployed "
        "pipeline, came to it. Tests and the start of the processes take no part of the seconds and bytes. Bytes are "
        "those of all training frames."
    )
    charts = [chart for name, record in named for chart in _charts(name, record)]
    tables = [table(name, record) for name, record in named]
    return Section("to-accuracy", "Time to an accuracy", text, tables, charts) if named else None


def table(name: str, record: ToAccuracy) -> Table:
    """The table of a record, which is called `name`: a row for each link, accuracy and method."""
    data = record.data
    rows: list[list[Cell]] = []
    for link in data["links"]:
        results = [row for row in data["results"] if row["link"] == link]
        for i, wanted in enumerate(data["accuracies"]):
            rows += [[link, wanted, row["codec"], *_cells(row, row["reached"][i], data)] for row in results]
    columns = [
        *text_columns("link"), Column("accuracy", "%"), *text_columns("method"), Column(f"time, {data['line']}", "s"),
        Column(f"against {data['against']}", suffix="x"), Column("both ways", "MB"), Column("up", "MB"),
        Column("down", "MB"), Column("epochs"),
    ]  # fmt: skip
    note = ABOUT[data["line"]] + (ABOUT_RATES if data.get("rates") else "")
    return Table(f"Time to an accuracy: {name}", columns, rows, note)


def _cells(row: Row, reached: Row, data: Row) -> list[Cell]:
    """Seconds, times the first method's, megabytes and epochs; or that it was never reached."""
    seconds, epoch = reached.get("seconds"), reached.get("epoch")
    if seconds is None or epoch is None:
        best = f"never: not in {data['setting']['epochs']} epochs, best {number(float(row['best']['accuracy']))} %"
        return [best, None, None, None, None, None]
    up, down = ((reached.get(name) or 0.0) / 1e6 for name in ("bytes_up", "bytes_down"))
    return [float(seconds), reached.get("times"), up + down, up, down, epoch]


def _charts(name: str, record: ToAccuracy) -> list[Chart]:
    """Accuracy against seconds over each link, and against bytes."""
    data = record.data
    codecs = data["codecs"]
    shown = dict(zip(codecs, colours(short(about.get("codec") or "") for about in codecs.values()), strict=True))
    curves = {(each["codec"], each.get("link")): each["epochs"] for each in data["trainings"]}
    charts = []
    for link in data["links"]:
        series = []
        for row in data["results"]:
            if row["link"] == link:
                epochs = curves[row["codec"], link if data["line"] == "measured" else None]
                series.append(_series(row["codec"], shown[row["codec"]], row["seconds"], epochs))
        label = f"training time over {link}, {data['line']}, s"
        charts.append(_plot(f"Accuracy over {link}: {name}", label, series, data))
    # What a method sends does not depend on the line: the first of its trainings stands for all.
    first: dict[str, list[Row]] = {}
    for (codec, _), epochs in curves.items():
        first.setdefault(codec, epochs)
    series = [
        _series(codec, shown[codec], [(each["bytes_up"] + each["bytes_down"]) / 1e6 for each in epochs], epochs)
        for codec, epochs in first.items()
    ]
    charts.append(_plot(f"Accuracy against bytes: {name}", "sent both ways, MB", series, data))
    return [chart for chart in charts if chart.series]


def _series(codec: str, colour: int, along: list[float], epochs: list[Row]) -> Series:
    return Series(codec, colour, along, [each["accuracy"] for each in epochs])


def _plot(title: str, label: str, series: list[Series], data: Row) -> Plot:
    """The plot of `series`, with a dashed line at each accuracy that was asked for."""
    along = [x for each in series for x in each.x]
    wanted = [
        Series(f"{each:g} %", DASHED, [min(along), max(along)], [each, each], style="limit")
        for each in data["accuracies"]
        if along
    ]
    note = f"Dashed: {', '.join(each.name for each in wanted)}." if wanted else ""
    log = all(x > 0 for x in along)
    return Plot(title, label, "test accuracy, %", [*series, *wanted], log_x=log, note=note)

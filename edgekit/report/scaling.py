"""The section on scaling: images/s, bytes, accuracy and the server's load by the number of devices."""

from collections.abc import Callable
from dataclasses import replace

from edgekit.report.content import Cell, Chart, Column, Plot, Section, Series, Spread, Table, text_columns
from edgekit.report.names import named_scalings, short
from edgekit.report.palette import colours
from edgekit.report.records import Records, Row, Scaling
from edgekit.report.results import rate, spread_series
from edgekit.report.timing import RUN_PARTS, scaled, split_table

#: What a fleet is told apart by, besides the number of its devices.
Line = tuple[str, str, str]


def section(records: Records) -> Section | None:
    """The section: a table of results, one of time, and four charts for each record."""
    tables: list[Table] = []
    charts: list[Chart] = []
    for name, record in named_scalings(records):
        lines = _lines(record)
        if lines:
            tables += [_table(name, record, lines), _time(name, lines)]
            charts += _charts(name, record, lines)
    text = (
        "Each number of devices trains on the same images, from beginning to end: real device and server processes on "
        "one machine, one line for all. Images/s are all images over the time from the first step to the last. Dashed: "
        "as many times the fewest devices' rate as there are more devices. A side that is busy all the time binds."
    )
    return Section("scaling", "Scaling", text, tables, charts) if tables else None


def _lines(record: Scaling) -> dict[Line, list[Row]]:
    """Link, mode and codec -> its results, from few devices to many."""
    found: dict[Line, list[Row]] = {}
    for row in sorted(record.data["results"], key=lambda row: row["devices"]):
        found.setdefault((row["link"], row["mode"], row["codec"]), []).append(row)
    links, codecs = list(record.data["links"]), list(record.data["codecs"])
    return dict(sorted(found.items(), key=lambda item: (links.index(item[0][0]), item[0][1], codecs.index(item[0][2]))))


def _spread(row: Row, key: str) -> Spread | None:
    found = row.get(key)
    return Spread(*(found[each] for each in Spread._fields)) if found else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _table(name: str, record: Scaling, lines: dict[Line, list[Row]]) -> Table:
    rows: list[list[Cell]] = []
    for line, results in lines.items():
        for row in results:
            cpu = row.get("cpu_seconds_per_image")
            rows.append(
                [
                    *line, row["devices"], rate(row), _spread(row, "device_rates"), _spread(row, "speedup"),
                    _percent(row.get("efficiency")), row["bytes_up_per_image"], row["bytes_down_per_image"],
                    _spread(row, "accuracy"), _percent(_busy(row, "server")), *scaled(cpu, ("server",), 1e3),
                    _percent(_busy(row, "device")), row.get("binds"),
                ]
            )  # fmt: skip
    columns = [
        *text_columns("link", "mode", "codec"), Column("devices"), Column("images/s"),
        Column("images/s, sum over devices"), Column("to the fewest", suffix="x"), Column("of the ideal", "%"),
        Column("up", "B/image"), Column("down", "B/image"), Column("accuracy", "%"),
        Column("server busy", "% of a core"),
        Column("CPU, server", "ms/image"), Column("a device busy", "% of a core"), *text_columns("what binds"),
    ]  # fmt: skip
    return Table(f"Scaling: {name}", columns, rows, _note(record))


def _note(record: Scaling) -> str:
    setting = record.data["setting"]
    images, epochs, share = (setting.get(key) for key in ("images", "epochs", "device_share"))
    told = [f"{images:,} images, {epochs} epoch{'' if epochs == 1 else 's'}"] if images and epochs else []
    told += [f"{setting['cores']} cores"] if setting.get("cores") else []
    told += [f"each device at most {share:g} of a core"] if share else []
    return f"{', '.join(told)}." if told else ""


def _time(name: str, lines: dict[Line, list[Row]]) -> Table:
    split = [
        (f"{', '.join(line)}, {row['devices']}", "", scaled(row.get("seconds_per_image"), RUN_PARTS))
        for line, results in lines.items()
        for row in results
    ]
    return split_table(f"Time of a device, by link, mode, codec and devices: {name}", split, RUN_PARTS)


def _charts(name: str, record: Scaling, lines: dict[Line, list[Row]]) -> list[Chart]:
    names = {line: _legend(line, lines) for line in lines}
    shown = dict(zip(lines, colours(short(record.data["codecs"][line[2]].get("codec") or "") for line in lines),
                     strict=True))  # fmt: skip

    def plot(title: str, label: str, value: Callable[[Row], Spread | None]) -> Plot:
        series = []
        for line, results in lines.items():
            points = [(row["devices"], value(row)) for row in results]
            known = [(x, y) for x, y in points if y is not None]
            if known:
                series.append(spread_series(names[line], shown[line], known))
        return Plot(f"{title}: {name}", "devices", label, series)

    speed = plot("Images/s over the number of devices", "images/s, all devices", rate)
    ideal = [
        Series(each.name, each.colour, each.x, [each.y[0] * x / each.x[0] for x in each.x], style="limit")
        for each in speed.series
        if len(each.x) > 1
    ]
    charts = [
        replace(speed, series=[*speed.series, *ideal], note="Dashed: linear scaling." if ideal else ""),
        plot("Server's load", "server busy, % of a core", lambda row: _one(_percent(_busy(row, "server")))),
        plot("Bytes of an image", "bytes an image, both ways",
             lambda row: _one(row["bytes_up_per_image"] + row["bytes_down_per_image"])),
        plot("Accuracy over the number of devices", "test accuracy, %", lambda row: _spread(row, "accuracy")),
    ]  # fmt: skip
    return [chart for chart in charts if chart.series]


def _busy(row: Row, side: str) -> float | None:
    return (row.get("busy") or {}).get(side)


def _one(value: float | None) -> Spread | None:
    return None if value is None else Spread(value, value, value)


def _legend(line: Line, lines: dict[Line, list[Row]]) -> str:
    """A line's codec, and its link and mode where there are several."""
    link, mode, codec = line
    several = [len({each[i] for each in lines}) > 1 for i in range(2)]
    return ", ".join([codec, *(word for word, told in zip((link, mode), several, strict=True) if told)])

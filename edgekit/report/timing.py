"""The section on time: a device's time by part, the latency of a batch, and its cost in CPU, memory and energy."""

from collections.abc import Sequence
from typing import Any

from edgekit.report.content import Bars, Cell, Chart, Column, Quantiles, Section, Table
from edgekit.report.names import depth, measure_names, run_names, subject
from edgekit.report.numbers import number
from edgekit.report.palette import ENCODE
from edgekit.report.records import Measure, Records

#: Part of a device's time -> its words, and its place in the palette.
PARTS = {
    "device_compute": ("device computes", 0), "encode": ("packs and unpacks", ENCODE),
    "network": ("waits for the network", 1), "server": ("waits for the server", 3),
}  # fmt: skip
#: Most bars in a chart.
MOST_BARS = 40


def section(records: Records) -> Section | None:
    """The section: time by part of measure records and training runs; latency and cost of measure records."""
    tables: list[Table] = []
    charts: list[Chart] = []
    for name, measure in zip(measure_names(records.measures), records.measures, strict=True):
        links = list(measure.data["links"])
        rows = sorted(measure.data["results"], key=lambda row: (links.index(row["link"]), row["in_flight"]))
        shown = [row for row in rows if row["in_flight"] == depth(measure)]
        split = [(f"{row['link']}, {row['codec']}", row.get("seconds_per_image") or {}) for row in shown]
        new = [_split(name, [label for label, _ in split], [parts for _, parts in split])]
        new += [_latency(name, measure), _cost(name, rows)]
        tables += [table for table in new if table.rows]
        charts += _bars(f"Time split: {name}", split, [row["link"] for row in shown])
    ended = [training for training in records.trainings if training.summary]
    for each in dict.fromkeys(map(subject, ended)):
        runs = [
            (name, _per_image(training.summary))
            for name, training in zip(run_names(ended), ended, strict=True)
            if training.summary and subject(training) == each
        ]
        title = f"training runs, {', '.join(each)}"
        tables.append(_split(title, [name for name, _ in runs], [parts for _, parts in runs]))
        charts += _bars(f"Time split: {title}", runs)
    text = (
        "A device's time: waiting for the network is all waiting that is not the server's own computing. Latency runs "
        "from a batch's first forward operation to its weights being updated."
    )
    return Section("time", "Time", text, tables, charts) if tables else None


def _per_image(summary: dict[str, Any]) -> dict[str, float]:
    """Part of a device's time -> seconds per image."""
    images = max(summary["images"] / max(summary.get("devices") or 1, 1), 1)
    return {part: seconds / images for part, seconds in summary["seconds"].items() if part in PARTS}


def _split(name: str, labels: Sequence[str], splits: Sequence[dict[str, Any]]) -> Table:
    rows: list[list[Cell]] = []
    for label, parts in zip(labels, splits, strict=True):
        found = [parts.get(part) for part in PARTS]
        if any(found):
            milliseconds: list[Cell] = [None if part is None else 1e3 * part for part in found]
            rows.append([label, *milliseconds, 1e3 * sum(part or 0.0 for part in found)])
    columns = [Column("", number=False), *(Column(words, "ms/image") for words, _ in PARTS.values())]
    return Table(f"Time split: {name}", [*columns, Column("together", "ms/image")], rows)


def _bars(title: str, rows: Sequence[tuple[str, dict[str, Any]]], groups: Sequence[str] = ()) -> list[Chart]:
    """The chart of time by part; rows of one group, which is a link, are together."""
    found = [(label, [parts.get(part) or 0.0 for part in PARTS], group)
             for (label, parts), group in zip(rows, groups or [""] * len(rows), strict=True)]  # fmt: skip
    found = [each for each in found if sum(each[1]) > 0]
    note = f"The first {MOST_BARS} of {len(found)}; the table has all." if len(found) > MOST_BARS else ""
    shown = found[:MOST_BARS]
    parts = [
        (words, colour, [100 * values[i] / sum(values) for _, values, _ in shown])
        for i, (words, colour) in enumerate(PARTS.values())
    ]
    totals = [f"{number(1e3 * sum(values))} ms/image" for _, values, _ in shown]
    starts = [i for i in range(1, len(shown)) if shown[i][2] != shown[i - 1][2]]
    labels = [label for label, _, _ in shown]
    return [Bars(title, "share of a device's time, %", labels, parts, totals, starts, note=note)] if shown else []


def latency(row: dict[str, Any]) -> Quantiles | None:
    """A result's latency in milliseconds; None unless all quantiles are known."""
    times = [(row.get("latency_s") or {}).get(key) for key in Quantiles._fields]
    return None if None in times else Quantiles(*(1e3 * float(time or 0.0) for time in times))


def _latency(name: str, measure: Measure) -> Table:
    """Links down, codecs across."""
    found: dict[tuple[str, str], Quantiles] = {}
    for row in measure.data["results"]:
        times = latency(row)
        if row["in_flight"] == depth(measure) and times:
            found[row["link"], row["codec"]] = times
    codecs = [codec for codec in measure.data["codecs"] if any(key[1] == codec for key in found)]
    rows: list[list[Cell]] = [
        [link, *(found.get((link, codec)) for codec in codecs)]
        for link in measure.data["links"]
        if any(key[0] == link for key in found)
    ]
    columns = [Column("link", number=False), *(Column(codec, "ms") for codec in codecs)]
    return Table(f"Latency of a batch: {name}", columns, rows, "p50 / p95 / p99.")


def _cost(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    cells: list[list[Cell]] = []
    for row in rows:
        cpu, memory = row.get("cpu_seconds_per_image") or {}, row.get("peak_memory_bytes") or {}
        spent = [None if cpu.get(side) is None else 1e3 * cpu[side] for side in ("device", "server", "link")]
        most = [None if memory.get(side) is None else memory[side] / 2**20 for side in ("device", "server")]
        joules = row.get("joules_per_image")
        if any(value is not None for value in (*spent, *most, joules)):
            cells.append([row["link"], row["codec"], row["in_flight"], *spent, *most, joules])
    columns = [Column("link", number=False), Column("codec", number=False), Column("in flight")]
    columns += [Column(f"CPU, {side}", "ms/image") for side in ("device", "server", "link")]
    columns += [Column(f"peak memory, {side}", "MiB") for side in ("device", "server")]
    note = "" if any(row[-1] is not None for row in cells) else "Energy could not be read on this machine."
    return Table(f"Cost: {name}", [*columns, Column("energy", "J/image")], cells, note)

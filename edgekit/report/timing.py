"""The section on time: a device's time by part, the latency of a batch, and its cost in CPU, memory and energy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit.report.content import Bars, Cell, Chart, Column, Section, Table, text_columns
from edgekit.report.names import ended_runs, named_measures, subject
from edgekit.report.numbers import number
from edgekit.report.palette import ENCODE
from edgekit.report.records import Measure, Records
from edgekit.report.results import grid, latency, results

#: Part of a device's time -> its words, and its place in the palette.
PARTS = {
    "device_compute": ("device computes", 0), "encode": ("packs and unpacks", ENCODE),
    "network": ("waits for the network", 1), "server": ("waits for the server", 3),
}  # fmt: skip
#: The same of a training, which has rounds.
RUN_PARTS = {**PARTS, "round": ("waits for rounds", 4)}
#: Most bars in a chart.
MOST_BARS = 40
#: Of each row: its label, its group, and the seconds per image of every part.
Splits = Sequence[tuple[str, str, list[float | None]]]
Parts = Mapping[str, tuple[str, int]]


def section(records: Records) -> Section | None:
    """The section: time by part of measure records and training runs; latency and cost of measure records."""
    tables: list[Table] = []
    charts: list[Chart] = []
    for name, measure in named_measures(records):
        split = [
            (f"{row['link']}, {row['codec']}", row["link"], scaled(row.get("seconds_per_image"), PARTS))
            for row in results(measure)
        ]
        new = [split_table(f"Time split: {name}", split), _latency(name, measure), _cost(name, measure)]
        tables += [table for table in new if table.rows]
        charts += _bars(name, split, PARTS)
    ended = ended_runs(records)
    for about in dict.fromkeys(subject(run) for _, run, _ in ended):
        mine = [(name, _per_image(end)) for name, run, end in ended if subject(run) == about]
        parts = RUN_PARTS if any(found.get("round") for _, found in mine) else PARTS
        split = [(name, "", scaled(found, parts)) for name, found in mine]
        tables.append(split_table(f"Time split: training runs, {about}", split, parts))
        charts += _bars(f"training runs, {about}", split, parts)
    text = (
        "A device's time: waiting for the network is all waiting that is not the server's own computing. Latency runs "
        "from a batch's first forward operation to its weights being updated."
    )
    return Section("time", "Time", text, tables, charts) if tables else None


def scaled(found: dict[str, Any] | None, keys: Iterable[str], factor: float = 1) -> list[float | None]:
    """The values of `keys` times `factor`; None for what is not known."""
    values = [(found or {}).get(key) for key in keys]
    return [None if value is None else factor * value for value in values]


def _per_image(summary: dict[str, Any]) -> dict[str, float]:
    """Part of a device's time -> seconds per image."""
    images = max(summary["images"] / max(summary.get("devices") or 1, 1), 1)
    return {part: seconds / images for part, seconds in summary["seconds"].items()}


def split_table(title: str, splits: Splits, parts: Parts = PARTS) -> Table:
    """The table of a device's time by `parts`, in the order of `splits`; rows without any are left out."""
    rows: list[list[Cell]] = []
    for label, _, seconds in splits:
        if any(seconds):
            milliseconds = [None if part is None else 1e3 * part for part in seconds]
            rows.append([label, *milliseconds, 1e3 * sum(part or 0.0 for part in seconds)])
    columns = [*text_columns(""), *(Column(words, "ms/image") for words, _ in parts.values())]
    return Table(title, [*columns, Column("together", "ms/image")], rows)


def _bars(name: str, splits: Splits, kinds: Parts) -> list[Chart]:
    """The chart of time by part; rows of one group, which is a link, are together."""
    found = [(label, group, [part or 0.0 for part in parts]) for label, group, parts in splits if any(parts)]
    note = f"The first {MOST_BARS} of {len(found)}; the table has all." if len(found) > MOST_BARS else ""
    shown = found[:MOST_BARS]
    parts = [
        (words, colour, [100 * values[i] / sum(values) for _, _, values in shown])
        for i, (words, colour) in enumerate(kinds.values())
    ]
    totals = [f"{number(1e3 * sum(values))} ms/image" for _, _, values in shown]
    starts = [i for i in range(1, len(shown)) if shown[i][1] != shown[i - 1][1]]
    labels = [label for label, _, _ in shown]
    title, label = f"Time split: {name}", "share of a device's time, %"
    return [Bars(title, label, labels, parts, totals, starts, note=note)] if shown else []


def _latency(name: str, measure: Measure) -> Table:
    known = {row["codec"] for row in results(measure) if latency(row)}
    codecs = [codec for codec in measure.data["codecs"] if codec in known]
    return grid(f"Latency of a batch: {name}", measure, latency, codecs, Column("", "ms"), "p50 / p95 / p99.")


def _cost(name: str, measure: Measure) -> Table:
    links = list(measure.data["links"])
    cells: list[list[Cell]] = []
    for row in sorted(measure.data["results"], key=lambda row: (links.index(row["link"]), row["in_flight"])):
        cost = scaled(row.get("cpu_seconds_per_image"), ("device", "server", "link"), 1e3)
        cost += scaled(row.get("peak_memory_bytes"), ("device", "server"), 2**-20)
        cost.append(row.get("joules_per_image"))
        if any(value is not None for value in cost):
            cells.append([row["link"], row["codec"], row["in_flight"], *cost])
    columns = [*text_columns("link", "codec"), Column("in flight")]
    columns += [Column(f"CPU, {side}", "ms/image") for side in ("device", "server", "link")]
    columns += [Column(f"peak memory, {side}", "MiB") for side in ("device", "server")]
    note = "" if any(row[-1] is not None for row in cells) else "Energy could not be read on this machine."
    return Table(f"Cost: {name}", [*columns, Column("energy", "J/image")], cells, note)

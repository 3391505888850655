"""The section on bytes per image: measured by direction and message kind, and by the papers' formula beside it."""

from collections import defaultdict
from typing import Any

from edgekit.line.meter import TRAINING_KINDS
from edgekit.report.content import Cell, Chart, Column, Dots, Section, Series, Table, text_columns
from edgekit.report.names import ended_runs, named_measures, subject
from edgekit.report.records import Measure, Records

WAYS = ("up", "down")
#: Codec or run -> (bytes per image by direction and kind, formula bytes).
Found = dict[str, tuple[dict[str, float], float | None]]


def section(records: Records) -> Section | None:
    """The section: a table for each measure record and one for the training runs, and a chart of each."""
    tables: list[Table] = []
    for name, measure in named_measures(records):
        if measure.data["cells"]:
            tables.append(_table(f"Bytes per image: {name}", "codec", _measured(measure)))
    ended = ended_runs(records)
    for about in dict.fromkeys(subject(run) for _, run, _ in ended):
        mine = [(name, end) for name, run, end in ended if subject(run) == about]
        runs = {name: (_of_run(end), end.get("formula_bytes_up_per_image")) for name, end in mine}
        tables.append(_table(f"Bytes per image, training runs: {about}", "run", runs))
    text = (
        "Measured: whole frames as they cross the link, headers, labels and codebooks included, over the images "
        "trained on; evaluation is left out. By formula: the codes alone, as the papers count. The two are never mixed."
    )
    return Section("bytes", "Bytes per image", text, tables, [_chart(table) for table in tables]) if tables else None


def _measured(measure: Measure) -> Found:
    """The bytes of each codec, the mean of its cells.

    All cells have equal weight. Weighted by images, those of fast links would dominate, whose entropy coders had more
    time to adapt.
    """
    found: Found = {}
    for codec, about in measure.data["codecs"].items():
        cells = [cell for cell in measure.data["cells"] if cell["codec"] == codec and cell["images"]]
        total: defaultdict[str, float] = defaultdict(float)
        for cell in cells:
            for way in WAYS:
                for kind, n in cell["bytes_per_image"][way].items():
                    total[f"{way} {kind}"] += n / len(cells)
        if cells:
            found[codec] = (total, about.get("formula_bytes_up_per_image"))
    return found


def _of_run(summary: dict[str, Any]) -> dict[str, float]:
    """Direction and kind -> bytes per image, for the message kinds of training, as in `bytes_up_per_image`."""
    counts = {tuple(key.split(".", 1)): n for key, n in summary["bytes_by_kind"].items() if "." in key}
    images = max(summary["images"], 1)
    return {f"{way} {kind}": n / images for (way, kind), n in counts.items() if way in WAYS and kind in TRAINING_KINDS}


def _table(title: str, head: str, found: Found) -> Table:
    """The table: a column per direction, and per message kind that takes at least half a byte anywhere."""
    totals = [total for total, _ in found.values()]
    kinds = {kind: max(total.get(kind, 0.0) for total in totals) for each in totals for kind in each}
    shown = {way: [kind for kind in kinds if kind.startswith(f"{way} ") and kinds[kind] >= 0.5] for way in WAYS}
    columns = text_columns(head)
    for way in WAYS:
        columns += [Column(way, "B")]
        columns += [Column(kind, "B") for kind in shown[way]] if len(shown[way]) > 1 else []
    columns.append(Column("up by formula", "B"))
    rows: list[list[Cell]] = []
    for name, (total, formula) in found.items():
        cells: list[Cell] = [name]
        for way in WAYS:
            cells.append(sum(n for kind, n in total.items() if kind.startswith(f"{way} ")))
            cells += [total.get(kind, 0.0) for kind in shown[way]] if len(shown[way]) > 1 else []
        rows.append([*cells, formula])
    note = "Kinds of less than half a byte are in the sums alone."
    return Table(title, columns, rows, note if sum(map(len, shown.values())) < len(kinds) else "")


def _chart(table: Table) -> Chart:
    """The chart of a table: bytes up and down of its rows, as dots."""
    heads = [column.name for column in table.columns]
    names = [str(row[0]) for row in table.rows]
    series = []
    for way, colour, style in (("up", 0, "line"), ("down", 1, "open")):
        values = [row[heads.index(way)] for row in table.rows]
        found = [(float(value), i) for i, value in enumerate(values) if isinstance(value, float) and value > 0]
        series.append(Series(way, colour, [x for x, _ in found], [y for _, y in found], style=style))
    return Dots(table.title, "bytes per image, measured", names, series)

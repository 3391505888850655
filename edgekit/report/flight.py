"""The section on batches in flight: images/s, staleness and accuracy by depth, the number of batches in flight."""

from edgekit.report.content import Cell, Chart, Column, Plot, Section, Table, text_columns
from edgekit.report.names import TELLING, ended_runs, named_measures, subject
from edgekit.report.records import Measure, Records, Row
from edgekit.report.results import latency, places, rate, speedup, spread_series

SAME = ("model", "dataset", "codec", "codec_config", *(key for key in TELLING if key != "in_flight"))
#: (link, codec) -> depth -> its result.
Lines = dict[tuple[str, str], dict[int, Row]]


def section(records: Records) -> Section | None:
    """The section, from results of more than one depth and from training runs that differ in depth."""
    tables: list[Table] = []
    charts: list[Chart] = []
    for name, measure in named_measures(records):
        lines = _lines(measure)
        if lines:
            tables.append(_table(name, lines))
            charts += _charts(name, measure, lines)
    tables += _runs(records)
    text = (
        "With several batches in flight a device computes the next ones while it waits. Staleness is the mean number "
        "of weight updates between a batch's forward pass and the use of its gradient."
    )
    return Section("in-flight", "Batches in flight", text, tables, charts) if tables else None


def _lines(measure: Measure) -> Lines:
    """The results of each link and codec with more than one depth, in the order of links and depths."""
    found: Lines = {}
    for row in sorted(measure.data["results"], key=lambda row: list(measure.data["links"]).index(row["link"])):
        found.setdefault((row["link"], row["codec"]), {})[row["in_flight"]] = row
    return {key: dict(sorted(depths.items())) for key, depths in found.items() if len(depths) > 1}


def _table(name: str, lines: Lines) -> Table:
    rows: list[list[Cell]] = []
    for (link, codec), depths in lines.items():
        first = rate(next(iter(depths.values()))).median
        for depth, row in depths.items():
            gain = rate(row).median / first if first else None
            cells: list[Cell] = [link, codec, depth, rate(row), gain]
            rows.append([*cells, row.get("staleness"), latency(row), speedup(row, "uq")])
    least = min(depth for depths in lines.values() for depth in depths)
    columns = [
        *text_columns("link", "codec"), Column("in flight"), Column("images/s"), Column(f"against {least}", suffix="x"),
        Column("staleness", "updates"), Column("p50 / p95 / p99", "ms"), Column("against uq", suffix="x"),
    ]  # fmt: skip
    return Table(f"Batches in flight: {name}", columns, rows)


def _charts(name: str, measure: Measure, lines: Lines) -> list[Chart]:
    """The charts, one per link."""
    charts: list[Chart] = []
    for link in dict.fromkeys(link for link, _ in lines):
        series = []
        for (at, codec), depths in lines.items():
            points = [(depth, rate(row)) for depth, row in depths.items()]
            if at == link and all(y.low > 0 for _, y in points):
                series.append(spread_series(codec, places(measure)[codec], points))
        if series:
            charts.append(Plot(f"Batches in flight at {link}: {name}", "batches in flight", "images/s trained", series))
    return charts


def _runs(records: Records) -> list[Table]:
    """Runs for which there is another run that is known to differ in depth alone."""
    ended = ended_runs(records)
    rows: list[list[Cell]] = []
    for name, run, end in ended:
        alike = [other for _, other, _ in ended if all(other.get(key) == run.get(key) for key in SAME)]
        if len({other.get("in_flight") for other in alike}) > 1:
            cells: list[Cell] = [subject(run), name, run.get("in_flight"), end["accuracy"]]
            rows.append([*cells, end["images_per_s"], end.get("staleness")])
    columns = [*text_columns("trained", "run"), Column("in flight"), Column("accuracy", "%")]
    columns += [Column("images/s, all devices"), Column("staleness", "updates")]
    return [Table("Accuracy by batches in flight", columns, rows)] if rows else []

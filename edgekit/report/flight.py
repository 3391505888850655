"""The section on batches in flight: images/s, staleness and accuracy by depth, the number of batches in flight."""

from edgekit.report.content import Cell, Chart, Column, Plot, Section, Series, Spread, Table
from edgekit.report.names import TELLING, measure_names, run_names, short, subject
from edgekit.report.palette import colours
from edgekit.report.records import Measure, Records
from edgekit.report.speed import speedup
from edgekit.report.timing import latency

SAME = ("model", "dataset", "codec", "codec_config", *(key for key in TELLING if key != "in_flight"))


def section(records: Records) -> Section | None:
    """The section, from results of more than one depth and from training runs that differ in depth."""
    tables: list[Table] = []
    charts: list[Chart] = []
    for name, measure in zip(measure_names(records.measures), records.measures, strict=True):
        lines = _lines(measure)
        if lines:
            tables.append(_table(name, lines))
            charts += _chart(name, measure, lines)
    tables += _runs(records)
    text = (
        "With several batches in flight a device computes the next ones while it waits. Staleness is the mean number "
        "of weight updates between a batch's forward pass and the use of its gradient."
    )
    return Section("in-flight", "Batches in flight", text, tables, charts) if tables else None


Lines = dict[tuple[str, str], dict[int, tuple[Spread, Cell, Cell, Spread | None]]]


def _lines(measure: Measure) -> Lines:
    """(link, codec) with more than one depth -> depth -> (images/s, staleness, latency in ms, speedup over uq)."""
    found: Lines = {}
    for row in sorted(measure.data["results"], key=lambda row: list(measure.data["links"]).index(row["link"])):
        rate = Spread(*(row["images_per_s"][key] for key in ("median", "low", "high")))
        at = found.setdefault((row["link"], row["codec"]), {})
        at[row["in_flight"]] = rate, row.get("staleness"), latency(row), speedup(row, "uq")
    return {key: dict(sorted(depths.items())) for key, depths in found.items() if len(depths) > 1}


def _table(name: str, lines: Lines) -> Table:
    rows: list[list[Cell]] = []
    for (link, codec), depths in lines.items():
        first = next(iter(depths.values()))[0].median
        for batches, (rate, staleness, times, against_uq) in depths.items():
            rows.append(
                [link, codec, batches, rate, rate.median / first if first else None, staleness, times, against_uq]
            )
    least = min(batches for depths in lines.values() for batches in depths)
    columns = [Column("link", number=False), Column("codec", number=False), Column("in flight"), Column("images/s")]
    columns += [
        Column(f"against {least}", suffix="x"),
        Column("staleness", "updates"),
        Column("p50 / p95 / p99", "ms"),
        Column("against uq", suffix="x"),
    ]
    return Table(f"Batches in flight: {name}", columns, rows)


def _chart(name: str, measure: Measure, lines: Lines) -> list[Chart]:
    """The charts, one per link."""
    charts: list[Chart] = []
    codecs = list(measure.data["codecs"])
    places = dict(zip(codecs, colours(short(codec) for codec in codecs), strict=True))
    for link in dict.fromkeys(link for link, _ in lines):
        series = []
        for (at, codec), depths in lines.items():
            rates = [rate for rate, *_ in depths.values()]
            if at == link and all(rate.low > 0 for rate in rates):
                spread = [(rate.low, rate.high) for rate in rates]
                series.append(Series(codec, places[codec], list(depths), [rate.median for rate in rates], spread))
        if series:
            charts.append(Plot(f"Batches in flight at {link}: {name}", "batches in flight", "images/s trained", series))
    return charts


def _runs(records: Records) -> list[Table]:
    """Runs for which there is another run that is known to differ in depth alone."""
    ended = [training for training in records.trainings if training.summary]
    alike = [[training.run.get(key) for key in SAME] for training in ended]
    depths = [
        {other.run.get("in_flight") for other, key in zip(ended, alike, strict=True) if key == mine} for mine in alike
    ]
    rows: list[list[Cell]] = []
    for name, training, differing in zip(run_names(ended), ended, depths, strict=True):
        summary = training.summary
        if len(differing) > 1 and summary:
            cells: list[Cell] = [", ".join(subject(training)), name, training.run.get("in_flight"), summary["accuracy"]]
            rows.append([*cells, summary["images_per_s"], summary.get("staleness")])
    columns = [Column("trained", number=False), Column("run", number=False), Column("in flight")]
    columns += [Column("accuracy", "%"), Column("images/s, all devices"), Column("staleness", "updates")]
    return [Table("Accuracy by batches in flight", columns, rows)] if rows else []

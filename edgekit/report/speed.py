"""The section on speed: images/s by codec and link, speedups, and limits, from records of `edgekit measure`."""

from collections.abc import Callable
from itertools import zip_longest
from statistics import median
from typing import Any

from edgekit.report.content import Cell, Chart, Column, Dots, Headline, Plot, Section, Series, Spread, Table, Tile
from edgekit.report.names import depth, measure_names, short
from edgekit.report.numbers import MISSING, number
from edgekit.report.palette import colours
from edgekit.report.records import Measure, Records

Row = dict[str, Any]
BASELINES = ("uq", "fp32")


def section(records: Records) -> Section | None:
    """The section: images/s, speedups, encoding alone and limits, of every measure record."""
    tables: list[Table] = []
    charts: list[list[list[Chart]]] = []
    for name, measure in zip(measure_names(records.measures), records.measures, strict=True):
        if not measure.data["results"]:
            continue
        tables += [_headline(name, measure), _rates(name, measure)]
        tables += [table for base in _baselines(measure) for table in _speedups(name, measure, base)]
        tables += _encoding(name, measure) + _limits(name, measure)
        charts.append([_curve(name, measure), *([_dots(name, measure, base)] for base in _baselines(measure))])
    text = (
        "Trained end to end: real device and server processes, an emulated link between them. Medians over the "
        "repeats, the least and the most in brackets. A speedup is a ratio within one repeat."
    )
    # Charts of one kind go side by side, not those of one record.
    drawn = [chart for kind in zip_longest(*charts, fillvalue=()) for each in kind for chart in each]
    return Section("speed", "Speed", text, [table for table in tables if table.rows], drawn) if tables else None


def headlines(records: Records) -> list[Headline]:
    """The headline of each record: SGQ's speedup over uniform quantisation by link, beside the paper's figure."""
    found = []
    for name, measure in zip(measure_names(records.measures), records.measures, strict=True):
        both = [(row, speedup(row, "uq")) for row in _rows(measure) if _is_sgq(measure, row)]
        mine = [(row, spread) for row, spread in both if spread]
        several = len({row["codec"] for row, _ in mine}) > 1
        tiles = [_tile(row, spread, several) for row, spread in mine]
        paper = measure.data.get("paper")
        if tiles and paper:
            value = f"{paper['speedup_over_uniform']:g}x"
            tiles.append(Tile("the paper's figure", value, "what it states; not measured here", True))
        if tiles:
            found.append(Headline(f"SGQ's images/s against uniform quantisation: {name}", tiles))
    return found


def _tile(row: Row, spread: Spread, several: bool) -> Tile:
    against = speedup(row, "fp32")
    detail = f"{number(spread.low)}{MISSING}{number(spread.high)}"
    detail += f"; {number(against.median)}x against fp32" if against else ""
    return Tile(row["link"] + (f", {row['codec']}" if several else ""), f"{number(spread.median)}x", detail)


def _is_sgq(measure: Measure, row: Row) -> bool:
    return bool(measure.data["codecs"][row["codec"]].get("codec") == "sgq")


def _rows(measure: Measure) -> list[Row]:
    """The results at the depth that tables show, in the order of links and codecs."""
    order = {key: list(measure.data[key]) for key in ("links", "codecs")}
    rows = [row for row in measure.data["results"] if row["in_flight"] == depth(measure)]
    return sorted(rows, key=lambda row: (order["links"].index(row["link"]), order["codecs"].index(row["codec"])))


def speedup(row: Row, baseline: str) -> Spread | None:
    """A result's speedup over `baseline`; None when it has none."""
    found = (row.get("speedup") or {}).get(baseline)
    return Spread(found["median"], found["low"], found["high"]) if found else None


def _baselines(measure: Measure) -> list[str]:
    """The baselines of a record's speedups: uq and fp32 first, then any other."""
    named = [base for row in _rows(measure) for base in row.get("speedup") or {} if speedup(row, base)]
    return list(dict.fromkeys([base for base in BASELINES if base in named] + named))


def _rate(row: Row) -> Spread:
    return Spread(*(row["images_per_s"][key] for key in ("median", "low", "high")))


def _headline(name: str, measure: Measure) -> Table:
    paper = measure.data.get("paper")
    rows: list[list[Cell]] = []
    for row in _rows(measure):
        if _is_sgq(measure, row):
            cells: list[Cell] = [row["link"], row["codec"], _rate(row), *(speedup(row, base) for base in BASELINES)]
            rows.append([*cells, paper["speedup_over_uniform"]] if paper else cells)
    columns = [Column("link", number=False), Column("codec", number=False), Column("images/s")]
    columns += [Column(f"against {base}", suffix="x") for base in BASELINES]
    note = ""
    if paper:
        columns.append(Column("the paper's, against uniform", suffix="x"))
        note = "The last column is what the paper states, not a measurement of this machine"
        note += f": {paper['source']}" if paper.get("source") else "."
    return Table(f"SGQ's speedup: {name}", columns, rows, note)


def _grid(measure: Measure, cell: Callable[[Row], Cell], suffix: str, without: str = "") -> tuple[list[Column], Any]:
    """Links down, codecs across."""
    found = {(row["link"], row["codec"]): cell(row) for row in _rows(measure)}
    codecs = [codec for codec in measure.data["codecs"] if codec != without]
    columns = [Column("link", number=False), *(Column(codec, suffix=suffix) for codec in codecs)]
    links = [link for link in measure.data["links"] if any(key[0] == link for key in found)]
    return columns, [[link, *(found.get((link, codec)) for codec in codecs)] for link in links]


def _rates(name: str, measure: Measure) -> Table:
    columns, rows = _grid(measure, _rate, "")
    batches = "1 batch" if depth(measure) == 1 else f"{depth(measure)} batches"
    return Table(f"Images/s trained: {name}", columns, rows, f"{batches} in flight. loopback: no emulated link.")


def _speedups(name: str, measure: Measure, base: str) -> list[Table]:
    columns, rows = _grid(measure, lambda row: speedup(row, base), "x", without=base)
    return [Table(f"Speedup against {base}: {name}", columns, rows)]


def _encoding(name: str, measure: Measure) -> list[Table]:
    """The table of encoding alone: the deployed graph and packing, without training or sending."""
    rows: list[list[Cell]] = []
    for codec in measure.data["codecs"]:
        mine = [row for row in measure.data.get("encoding") or [] if row["codec"] == codec]
        if mine:
            rates = [row["images_per_s"] for row in mine]
            cells: list[Cell] = [codec, Spread(median(rates), min(rates), max(rates))]
            for key in ("p50", "p95", "p99"):
                times = [row["latency_s"][key] for row in mine if (row.get("latency_s") or {}).get(key) is not None]
                cells.append(1e3 * median(times) if times else None)
            rows.append(cells)
    columns = [Column("codec", number=False), Column("images/s"), *(Column(key, "ms") for key in ("p50", "p95", "p99"))]
    return [Table(f"Encoding alone: {name}", columns, rows, "No training, no link. Latency is of one batch.")]


def _limits(name: str, measure: Measure) -> list[Table]:
    rows: list[list[Cell]] = []
    for codec in measure.data["codecs"]:
        for batches, limit in (measure.data.get("limits") or {}).get(codec, {}).items():
            binds = limit.get("binds_below_bit_s")
            rows.append(
                [codec, batches, limit.get("compute_bound_images_per_s"), None if binds is None else binds / 1e6]
            )
    columns = [Column("codec", number=False), Column("in flight"), Column("images/s at best")]
    columns.append(Column("link binds below", "Mbit/s"))
    note = "At best: what compute allows, measured without a link. Below the last column's rate the link takes longer."
    return [Table(f"Limits: {name}", columns, rows, note)]


def _curve(name: str, measure: Measure) -> list[Chart]:
    """Images/s over the link's rate, and each codec's roof: the link's share rising, then what compute allows."""
    codecs = list(measure.data["codecs"])
    series = []
    others = False
    for codec, colour in zip(codecs, colours(short(codec) for codec in codecs), strict=True):
        plain: list[tuple[float, Spread]] = []
        delayed: list[tuple[float, Spread]] = []
        for row in _rows(measure):
            link = measure.data["links"][row["link"]]
            symmetric = link and link["up_bit_s"] == link["down_bit_s"] > 0
            if row["codec"] == codec and symmetric and row["images_per_s"]["low"] > 0:
                slow = any(link.get(key) for key in ("round_trip_s", "jitter_s", "stall_s"))
                (delayed if slow else plain).append((link["up_bit_s"] / 1e6, _rate(row)))
        for points, style in ((plain, "line"), (delayed, "open")):
            if points:
                points.sort()
                x, rates = [rate for rate, _ in points], [spread for _, spread in points]
                spread = [(each.low, each.high) for each in rates]
                series.append(Series(codec, colour, x, [each.median for each in rates], spread, style))
        others = others or bool(delayed)
    measured = [x for each in series for x in each.x]
    if not measured:
        return []
    roofs = [
        roof for each in series if each.style == "line" for roof in _roof(each, measure, min(measured), max(measured))
    ]
    notes = ["Dashed: the physical limit, what link or compute alone would allow."] if roofs else []
    notes += ["Diamond: where compute begins to bind."] if any(roof.style == "knee" for roof in roofs) else []
    notes += ["Hollow: a link with delay, jitter or stalls, see the table."] if others else []
    title = f"Images/s trained over the link's rate: {name}"
    lines = [*series, *roofs]
    return [Plot(title, "link rate, each way, Mbit/s", "images/s trained", lines, True, True, note=" ".join(notes))]


def _roof(line: Series, measure: Measure, least: float, most: float) -> list[Series]:
    """The dashed limit of `line` between two link rates, and its knee if that is near."""
    limits = (measure.data.get("limits") or {}).get(line.name, {}).get(str(depth(measure)), {})
    top, knee = limits.get("compute_bound_images_per_s"), (limits.get("binds_below_bit_s") or 0) / 1e6
    if not top:
        return []
    # The axis is extended for a knee a little beyond the measured rates.
    least, most = (min(least, 0.8 * knee), max(most, 1.25 * knee)) if least / 5 < knee < 5 * most else (least, most)
    if not least < knee < most:
        x, y = [least, most], [min(top, top * rate / knee) if knee else top for rate in (least, most)]
        return [Series(line.name, line.colour, x, y, style="limit")]
    x, y = [least, knee, most], [top * least / knee, top, top]
    return [
        Series(line.name, line.colour, x, y, style="limit"),
        Series(line.name, line.colour, [knee], [top], style="knee"),
    ]


def _dots(name: str, measure: Measure, base: str) -> Chart:
    """The chart of speedups over one baseline, a row of dots per link."""
    links = [link for link in measure.data["links"] if any(row["link"] == link for row in _rows(measure))]
    codecs = list(measure.data["codecs"])
    series = []
    for codec, colour in zip(codecs, colours(short(codec) for codec in codecs), strict=True):
        mine = [(speedup(row, base), links.index(row["link"])) for row in _rows(measure) if row["codec"] == codec]
        found = [(spread, place) for spread, place in mine if spread and spread.low > 0 and codec != base]
        if found:
            x, spread = [each.median for each, _ in found], [(each.low, each.high) for each, _ in found]
            series.append(Series(codec, colour, x, [place for _, place in found], spread))
    references = [(1.0, f"as fast as {base}")]
    if measure.data.get("paper") and base == "uq":
        value = measure.data["paper"]["speedup_over_uniform"]
        references += [(value, f"the paper's {value:g}x")] if value > 0 else []
    label = f"images/s trained, times those of {base}"
    return Dots(f"Speedup against {base}: {name}", label, links, series, references)

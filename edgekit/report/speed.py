"""The section on speed: images/s by codec and link, speedups, and limits, from records of `edgekit measure`."""

from itertools import zip_longest
from statistics import median

from edgekit.report.content import (
    Cell,
    Chart,
    Column,
    Dots,
    Headline,
    Plot,
    Quantiles,
    Section,
    Series,
    Spread,
    Table,
    Tile,
    text_columns,
)  # fmt: skip
from edgekit.report.names import named_measures
from edgekit.report.numbers import MISSING, number
from edgekit.report.records import Measure, Records, Row
from edgekit.report.results import depth, grid, places, rate, results, speedup, spread_series

BASELINES = ("uq", "fp32")


def section(records: Records) -> Section | None:
    """The section: images/s, speedups, encoding alone and limits, of every measure record."""
    tables: list[Table] = []
    charts: list[list[list[Chart]]] = []
    for name, measure in named_measures(records):
        if not measure.data["results"]:
            continue
        bases = _baselines(measure)
        tables += [_headline(name, measure), _rates(name, measure)]
        tables += [_speedups(name, measure, base) for base in bases]
        tables += [_encoding(name, measure), _limits(name, measure)]
        charts.append([_curve(name, measure), *([_dots(name, measure, base)] for base in bases)])
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
    for name, measure in named_measures(records):
        both = [(row, speedup(row, "uq")) for row in _of_sgq(measure)]
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


def _of_sgq(measure: Measure) -> list[Row]:
    return [row for row in results(measure) if measure.data["codecs"][row["codec"]].get("codec") == "sgq"]


def _baselines(measure: Measure) -> list[str]:
    """The baselines of a record's speedups: uq and fp32 first, then any other."""
    named = [base for row in results(measure) for base in row.get("speedup") or {} if speedup(row, base)]
    return list(dict.fromkeys([base for base in BASELINES if base in named] + named))


def _headline(name: str, measure: Measure) -> Table:
    paper = measure.data.get("paper")
    rows: list[list[Cell]] = []
    for row in _of_sgq(measure):
        cells: list[Cell] = [row["link"], row["codec"], rate(row), *(speedup(row, base) for base in BASELINES)]
        rows.append([*cells, paper["speedup_over_uniform"]] if paper else cells)
    against = [Column(f"against {base}", suffix="x") for base in BASELINES]
    columns = [*text_columns("link", "codec"), Column("images/s"), *against]
    note = ""
    if paper:
        columns.append(Column("the paper's, against uniform", suffix="x"))
        note = "The last column is what the paper states, not a measurement of this machine"
        note += f": {paper['source']}" if paper.get("source") else "."
    return Table(f"SGQ's speedup: {name}", columns, rows, note)


def _rates(name: str, measure: Measure) -> Table:
    note = f"{depth(measure)} {'batch' if depth(measure) == 1 else 'batches'} in flight. loopback: no emulated link."
    return grid(f"Images/s trained: {name}", measure, rate, list(measure.data["codecs"]), Column(""), note)


def _speedups(name: str, measure: Measure, base: str) -> Table:
    title, others = f"Speedup against {base}: {name}", [codec for codec in measure.data["codecs"] if codec != base]
    return grid(title, measure, lambda row: speedup(row, base), others, Column("", suffix="x"))


def _encoding(name: str, measure: Measure) -> Table:
    """The table of encoding alone: the deployed graph and packing, without training or sending."""
    rows: list[list[Cell]] = []
    for codec in measure.data["codecs"]:
        mine = [row for row in measure.data.get("encoding") or [] if row["codec"] == codec]
        if mine:
            rates = [row["images_per_s"] for row in mine]
            cells: list[Cell] = [codec, Spread(median(rates), min(rates), max(rates))]
            for key in Quantiles._fields:
                times = [row["latency_s"][key] for row in mine if (row.get("latency_s") or {}).get(key) is not None]
                cells.append(1e3 * median(times) if times else None)
            rows.append(cells)
    columns = [*text_columns("codec"), Column("images/s"), *(Column(key, "ms") for key in Quantiles._fields)]
    return Table(f"Encoding alone: {name}", columns, rows, "No training, no link. Latency is of one batch.")


def _limits(name: str, measure: Measure) -> Table:
    rows: list[list[Cell]] = []
    for codec in measure.data["codecs"]:
        for batches, limit in (measure.data.get("limits") or {}).get(codec, {}).items():
            binds = limit.get("binds_below_bit_s")
            best = limit.get("compute_bound_images_per_s")
            rows.append([codec, batches, best, None if binds is None else binds / 1e6])
    columns = [*text_columns("codec"), Column("in flight"), Column("images/s at best")]
    columns.append(Column("link binds below", "Mbit/s"))
    note = "At best: what compute allows, measured without a link. Below the last column's rate the link takes longer."
    return Table(f"Limits: {name}", columns, rows, note)


def _curve(name: str, measure: Measure) -> list[Chart]:
    """Images/s over the link's rate, and each codec's roof: the link's share rising, then what compute allows."""
    series = []
    for codec, colour in places(measure).items():
        points: dict[str, list[tuple[float, Spread]]] = {"line": [], "open": []}
        for row in results(measure):
            link = measure.data["links"][row["link"]]
            symmetric = link and link["up_bit_s"] == link["down_bit_s"] > 0
            if row["codec"] == codec and symmetric and rate(row).low > 0:
                delayed = any(link.get(key) for key in ("round_trip_s", "jitter_s", "stall_s"))
                points["open" if delayed else "line"].append((link["up_bit_s"] / 1e6, rate(row)))
        series += [spread_series(codec, colour, sorted(found), style) for style, found in points.items() if found]
    measured = [x for each in series for x in each.x]
    if not measured:
        return []
    roofs = [
        roof for each in series if each.style == "line" for roof in _roof(each, measure, min(measured), max(measured))
    ]
    lines = [*series, *roofs]
    styles = {each.style for each in lines}
    notes = ["Dashed: the physical limit, what link or compute alone would allow."] if "limit" in styles else []
    notes += ["Diamond: where compute begins to bind."] if "knee" in styles else []
    notes += ["Hollow: a link with delay, jitter or stalls, see the table."] if "open" in styles else []
    title = f"Images/s trained over the link's rate: {name}"
    return [Plot(title, "link rate, each way, Mbit/s", "images/s trained", lines, True, True, note=" ".join(notes))]


def _roof(line: Series, measure: Measure, least: float, most: float) -> list[Series]:
    """The dashed limit of `line` between two link rates, and its knee if that is near."""
    limits = (measure.data.get("limits") or {}).get(line.name, {}).get(str(depth(measure)), {})
    top, knee = limits.get("compute_bound_images_per_s"), (limits.get("binds_below_bit_s") or 0) / 1e6
    if not top:
        return []
    # The axis is extended for a knee a little beyond the measured rates.
    least, most = (min(least, 0.8 * knee), max(most, 1.25 * knee)) if least / 5 < knee < 5 * most else (least, most)
    knees = [knee] if least < knee < most else []
    x = [least, *knees, most]
    limit = Series(line.name, line.colour, x, [top * at / knee if at < knee else top for at in x], style="limit")
    return [limit, *(Series(line.name, line.colour, knees, [top], style="knee") for _ in knees)]


def _dots(name: str, measure: Measure, base: str) -> Chart:
    """The chart of speedups over one baseline, a row of dots per link."""
    links = list(dict.fromkeys(row["link"] for row in results(measure)))
    series = []
    for codec, colour in places(measure).items():
        mine = [(speedup(row, base), links.index(row["link"])) for row in results(measure) if row["codec"] == codec]
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

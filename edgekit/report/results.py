"""The results of a measure record, and the forms that several sections show them in."""

from collections import Counter
from collections.abc import Callable, Sequence

from edgekit.report.content import Cell, Column, Quantiles, Series, Spread, Table, text_columns
from edgekit.report.names import short
from edgekit.report.palette import colours
from edgekit.report.records import Measure, Row


def depth(measure: Measure) -> int:
    """The depth that a record's tables show: that of most of its results, the smallest among equals."""
    counts = Counter(row["in_flight"] for row in measure.data["results"])
    return min(counts, key=lambda each: (-counts[each], each), default=1)


def results(measure: Measure) -> list[Row]:
    """The results at the depth that tables show, in the order of links and codecs."""
    links, codecs = list(measure.data["links"]), list(measure.data["codecs"])
    rows = [row for row in measure.data["results"] if row["in_flight"] == depth(measure)]
    return sorted(rows, key=lambda row: (links.index(row["link"]), codecs.index(row["codec"])))


def rate(row: Row) -> Spread:
    """A result's images/s."""
    return Spread(*(row["images_per_s"][key] for key in Spread._fields))


def speedup(row: Row, baseline: str) -> Spread | None:
    """A result's speedup over `baseline`; None when it has none."""
    found = (row.get("speedup") or {}).get(baseline)
    return Spread(*(found[key] for key in Spread._fields)) if found else None


def latency(row: Row) -> Quantiles | None:
    """A result's latency in milliseconds; None unless all quantiles are known."""
    times = [(row.get("latency_s") or {}).get(key) for key in Quantiles._fields]
    return None if None in times else Quantiles(*(1e3 * float(time or 0.0) for time in times))


def places(measure: Measure) -> dict[str, int]:
    """Codec -> its place in the palette, in all charts of a record."""
    codecs = measure.data["codecs"]
    return dict(zip(codecs, colours(map(short, codecs)), strict=True))


def spread_series(name: str, colour: int, points: Sequence[tuple[float, Spread]], style: str = "line") -> Series:
    """The series of points (x, y), with the spread of each y."""
    spread = [(y.low, y.high) for _, y in points]
    return Series(name, colour, [x for x, _ in points], [y.median for _, y in points], spread, style)


def grid(
    title: str, measure: Measure, cell: Callable[[Row], Cell], codecs: Sequence[str], about: Column, note: str = ""
) -> Table:
    """A table of links down and `codecs` across, whose columns are like `about`; a link without results is left out."""
    found = {(row["link"], row["codec"]): cell(row) for row in results(measure)}
    links = dict.fromkeys(link for link, _ in found)
    rows = [[link, *(found.get((link, codec)) for codec in codecs)] for link in links]
    return Table(title, [*text_columns("link"), *(about._replace(name=codec) for codec in codecs)], rows, note)

"""What a report is made of, before it has a format: sections of tables and charts, with the bare numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import edgekit


class Spread(NamedTuple):
    """Median over the repeats, the least and the most."""

    median: float
    low: float
    high: float


class Quantiles(NamedTuple):
    """Half, 95 % and 99 % of the values are below these."""

    p50: float
    p95: float
    p99: float


Cell = str | float | Spread | Quantiles | None


class Column(NamedTuple):
    """Head of a column; numbers stand right, `unit` is part of the head, `suffix` of every cell."""

    name: str
    unit: str = ""
    number: bool = True
    suffix: str = ""


@dataclass(frozen=True)
class Table:
    """`rows` has a cell per column; None is what was not measured."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points of a plot or one value per category of `Dots`; `colour` is a place in the palette.

    `style`: "line" connects the points, "open" draws them hollow, "limit" is a thin dashed line without points,
    "knee" the points where one limit passes into another.
    """

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[tuple[float, float]] = ()
    style: str = "line"


@dataclass(frozen=True)
class Chart:
    """A chart without its data."""

    title: str
    x_label: str
    note: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Plot(Chart):
    """y over x."""

    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Dots(Chart):
    """Values on a logarithmic axis, a line of them per category; series hold the category's number in `y`."""

    categories: Sequence[str]
    series: Sequence[Series]
    references: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Bars(Chart):
    """Bars of 100 %, split by part; `totals` stand at their ends, `starts` are bars with a gap before them."""

    categories: Sequence[str]
    parts: Sequence[tuple[str, int, Sequence[float]]]
    totals: Sequence[str]
    starts: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """One subject; `name` is its id."""

    name: str
    title: str
    text: str
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    commands: Sequence[tuple[str, str]] = ()


class Tile(NamedTuple):
    """One headline figure; a quoted one was not measured."""

    label: str
    value: str
    detail: str
    quoted: bool = False


class Headline(NamedTuple):
    """The headline figures of one record."""

    title: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Report:
    """`missing` has, per section that has no data, its title and the command that would make it."""

    title: str
    sources: Sequence[str]
    warnings: Sequence[str]
    headlines: Sequence[Headline]
    sections: Sequence[Section]
    missing: Sequence[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        """JSON values only: the numbers behind every table and chart."""
        return {
            "format": "edgekit-report",
            "version": 1,
            "edgekit": edgekit.__version__,
            **_plain(self),
        }


def _plain(value: Any) -> Any:
    """`value` in lists, objects and plain values; a chart says its kind."""
    if is_dataclass(value):
        kind = {"kind": type(value).__name__.lower()} if isinstance(value, Chart) else {}
        return kind | {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(each) for key, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value

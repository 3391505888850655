"""The content of a report before it has a format: sections of tables and charts, as plain numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import edgekit


class Spread(NamedTuple):
    """The median of the repeats, their lowest and their highest."""

    median: float
    low: float
    high: float


class Quantiles(NamedTuple):
    """Quantiles: 50 %, 95 % and 99 % of the values are below these."""

    p50: float
    p95: float
    p99: float


Cell = str | float | Spread | Quantiles | None


class Column(NamedTuple):
    """A column of a table. Numbers are aligned right; `unit` is shown in the head, `suffix` in every cell."""

    name: str
    unit: str = ""
    number: bool = True
    suffix: str = ""


def text_columns(*names: str) -> list[Column]:
    """A column of text for each name."""
    return [Column(name, number=False) for name in names]


@dataclass(frozen=True)
class Table:
    """A table; a row has a cell per column, None where nothing was measured."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """The points of a plot, or one value per category of `Dots`; `colour` is an index into the palette.

    `style` is "line" (connected points), "open" (hollow points), "limit" (a thin dashed line without points) or "knee"
    (points where one limit takes over from another).
    """

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[tuple[float, float]] = ()
    style: str = "line"


@dataclass(frozen=True)
class Chart:
    """What all charts have; the data are in its subclasses."""

    title: str
    x_label: str
    note: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Plot(Chart):
    """A chart of y over x."""

    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Dots(Chart):
    """A chart of values on a logarithmic axis, a row per category; in a series `y` is the category's number."""

    categories: Sequence[str]
    series: Sequence[Series]
    references: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Bars(Chart):
    """A chart of bars of 100 %, split into parts; `totals` are written at their ends, `starts` have a gap before."""

    categories: Sequence[str]
    parts: Sequence[tuple[str, int, Sequence[float]]]
    totals: Sequence[str]
    starts: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A section of the report; `name` is its id."""

    name: str
    title: str
    text: str
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    commands: Sequence[tuple[str, str]] = ()


class Tile(NamedTuple):
    """One headline figure; a quoted one comes from a paper and was not measured."""

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
    """A whole report. `missing`: title and measuring command of every section without data."""

    title: str
    sources: Sequence[str]
    warnings: Sequence[str]
    headlines: Sequence[Headline]
    sections: Sequence[Section]
    missing: Sequence[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        """The numbers behind every table and chart, as JSON values."""
        return {"format": "edgekit-report", "version": 1, "edgekit": edgekit.__version__, **_plain(self)}


def _plain(value: Any) -> Any:
    """`value` as JSON values; a chart has its kind as a field."""
    if is_dataclass(value):
        kind = {"kind": type(value).__name__.lower()} if isinstance(value, Chart) else {}
        return kind | {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(each) for key, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value

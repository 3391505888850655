"""Draws charts with matplotlib, for the page and for the picture."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgekit.report.content import Bars, Chart, Dots, Plot, Series
from edgekit.report.numbers import tick
from edgekit.report.palette import INK, LINE, MUTED, SURFACE, colour, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Width in inches, font size in points: readable also when a phone shows the chart 370 pixels wide.
WIDTH, SIZE = 5.0, 10
#: Numbers of characters that fit across a chart of that width, and beside its axis.
ACROSS, BESIDE = 66, 20
#: Gap before a new group of bars, in rows.
GAP = 0.7
#: For matplotlib's rc_context. Names in records are plain text, never formulas.
STYLE: Any = {
    "text.parse_math": False, "font.size": SIZE, "axes.edgecolor": MUTED, "axes.labelcolor": MUTED,
    "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "grid.color": LINE, "grid.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
    "svg.fonttype": "none", "path.simplify": False, "axes.unicode_minus": True,
}  # fmt: skip


def height(chart: Chart) -> float:
    """The height in inches of `chart` at `WIDTH`."""
    legend = _legend(chart)
    above = 0.21 * math.ceil(len(legend) / _columns(legend))
    if isinstance(chart, Plot):
        return 3.2 + above
    assert isinstance(chart, (Bars, Dots))
    rows = len(chart.categories)
    pitch = 0.46 if _long(chart.categories) else 0.27 if isinstance(chart, Bars) else 0.3
    if isinstance(chart, Bars):
        return above + 0.75 + pitch * (rows + GAP * len(chart.starts))
    return above + max(2.6, 0.85 + pitch * rows)


def draw(axes: "Axes", chart: Chart) -> None:
    """Draws `chart`, its labels and its legend, but not its title."""
    if isinstance(chart, Plot):
        _plot(axes, chart)
    elif isinstance(chart, Dots):
        _dots(axes, chart)
    elif isinstance(chart, Bars):
        _bars(axes, chart)
    axes.set_xlabel(clipped(chart.x_label, ACROSS))
    legend = _legend(chart)
    if legend:
        columns = _columns(legend)
        # Reordered to be read row by row: matplotlib fills column by column.
        names = [name for column in range(columns) for name in list(legend)[column::columns]]
        axes.get_figure().legend(  # type: ignore[union-attr]
            [legend[name] for name in names], names, loc="outside upper left", ncols=columns, fontsize=SIZE - 1,
            handlelength=1.6, columnspacing=1.2, handletextpad=0.5, borderaxespad=0.1, borderpad=0.1, labelspacing=0.3,
        )  # fmt: skip


def clipped(name: str, most: int) -> str:
    """`name`, cut to `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _plot(axes: "Axes", chart: Plot) -> None:
    for place, series in enumerate(chart.series):
        shade = colour(series.colour)
        if series.style == "limit":
            axes.plot(series.x, series.y, color=shade, linestyle=(0, (4, 3)), linewidth=1.0, alpha=0.75, zorder=1.5)
        elif series.style == "knee":
            axes.plot(series.x, series.y, "d", color=SURFACE, markeredgecolor=shade, markersize=7, zorder=2.5)
        else:
            _points(axes, series, line=series.style == "line", zorder=3 + 0.01 * place)
    ends = [end for each in chart.series for pair in each.spread for end in pair]
    _scale(axes, "x", chart.log_x, [x for each in chart.series for x in each.x])
    _scale(axes, "y", chart.log_y, [y for each in chart.series for y in each.y] + ends)
    axes.set_ylabel(chart.y_label)
    axes.grid(True)


def _points(axes: "Axes", series: Series, line: bool, zorder: float, flat: bool = False) -> None:
    """Draws markers, the line between them, and the spread as error bars, along x if `flat`."""
    shade = colour(series.colour)
    values = series.x if flat else series.y
    spread: Any = None
    if series.spread:
        pairs = list(zip(values, series.spread, strict=True))
        spread = [[max(y - low, 0.0) for y, (low, _) in pairs], [max(high - y, 0.0) for y, (_, high) in pairs]]
    axes.errorbar(
        series.x, series.y, **{"xerr" if flat else "yerr": spread}, color=shade, marker=marker(series.colour),
        markersize=5.5,
        linestyle="-" if line else "none", linewidth=1.8, elinewidth=1.2, capsize=2.5, zorder=zorder,
        markerfacecolor=SURFACE if series.style == "open" else shade, markeredgecolor=shade,
    )  # fmt: skip


def _dots(axes: "Axes", chart: Dots) -> None:
    """Draws a row per category; series are a little apart, so that equal values stay visible."""
    count = len(chart.series)
    for place, series in enumerate(chart.series):
        offset = (place - (count - 1) / 2) * min(0.14, (0.4 if _long(chart.categories) else 0.7) / max(count, 1))
        moved = replace(series, y=[y + offset for y in series.y])
        _points(axes, moved, line=False, zorder=3, flat=True)
    for value, words in chart.references:
        axes.axvline(value, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)) if value != 1 else "-", zorder=1)
        words, at = clipped(words, BESIDE), axes.get_xaxis_transform()
        axes.text(value, 1.01, f"{words} ", transform=at, ha="right", va="bottom", fontsize=SIZE - 1.5, color=MUTED)
    values = [x for each in chart.series for x in each.x] + [value for value, _ in chart.references]
    _scale(axes, "x", True, values)
    _categories(axes, chart.categories, range(len(chart.categories)))
    axes.grid(True, axis="x")


def _bars(axes: "Axes", chart: Bars) -> None:
    rows = [row + GAP * sum(start <= row for start in chart.starts) for row in range(len(chart.categories))]
    left = [0.0] * len(rows)
    thick = 0.42 if _long(chart.categories) else 0.7
    for _, place, values in chart.parts:
        axes.barh(rows, values, left=left, height=thick, color=colour(place), linewidth=0)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for row, total in zip(rows, chart.totals, strict=True):
        axes.text(101.5, row, total, va="center", fontsize=SIZE - 1, color=INK)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 25))
    _categories(axes, chart.categories, rows)


def _long(names: Sequence[str]) -> bool:
    """Whether names are too long to be beside the axis; then they are above their rows."""
    return max(map(len, names), default=0) > BESIDE


def _categories(axes: "Axes", names: Sequence[str], rows: Sequence[float]) -> None:
    axes.tick_params(axis="y", length=0)
    if _long(names):
        axes.set_yticks([])
        axes.set_ylim(rows[-1] + 0.45, -0.75)
        for row, name in zip(rows, names, strict=True):
            at = axes.get_yaxis_transform()
            axes.text(0.012, row - 0.27, clipped(name, ACROSS), transform=at, va="bottom", fontsize=SIZE - 1, color=INK)
        return
    axes.set_yticks(list(rows), list(names), color=INK)
    axes.set_ylim(rows[-1] + 0.55 if rows else 1, -0.55)


def _scale(axes: "Axes", name: str, log: bool, values: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis = axes.xaxis if name == "x" else axes.yaxis
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = _step(min(positive), up=False), _step(max(positive), up=True)
        axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
        decades = math.log10(high / low)
        subs = (1, 2, 5) if decades < 2.1 else (1, 3) if decades < 3 else (1,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_minor_locator(NullLocator())
    else:
        whole = all(value == int(value) for value in values) and name == "x"
        axis.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _step(value: float, up: bool) -> float:
    """The next of 1, 2, 5, 10 ... above `value`, or below it unless `up`, with a little room."""
    value *= 1.12 if up else 1 / 1.12
    power = 10.0 ** math.floor(math.log10(value))
    steps = [step * power for step in (1, 2, 5, 10)]
    if up:
        return min(step for step in steps if step >= value)
    return max(step for step in steps if step <= value * (1 + 1e-9))


def _columns(legend: dict[str, Any]) -> int:
    return max(1, min(len(legend), ACROSS // (max(map(len, legend), default=0) + 7)))


def _legend(chart: Chart) -> dict[str, Any]:
    """The legend's names and their handles: series with points, or parts of bars."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if isinstance(chart, Bars):
        return {name: Patch(color=colour(place)) for name, place, _ in chart.parts}
    assert isinstance(chart, (Plot, Dots))
    entries: dict[str, Any] = {}
    for series in chart.series:
        if series.style in ("line", "open"):
            hollow = isinstance(chart, Dots) and series.style == "open"
            handle = Line2D(
                [], [], color=colour(series.colour), marker=marker(series.colour), markersize=5.5,
                linestyle="-" if isinstance(chart, Plot) and len(series.x) > 1 else "none",
                markerfacecolor=SURFACE if hollow else colour(series.colour),
            )  # fmt: skip
            entries.setdefault(clipped(series.name, ACROSS), handle)
    return entries

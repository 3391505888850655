"""The main charts of a report as one PNG, for a README."""

import io
import textwrap
from typing import TYPE_CHECKING

from edgekit.report.content import Chart, Report
from edgekit.report.draw import ACROSS, STYLE, WIDTH, clipped, draw, height
from edgekit.report.palette import MUTED

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

#: Number of charts, and of columns: more could not be read in one picture.
MOST, COLUMNS = 6, 2
#: Inches for a title and for the two lines of a note.
TITLE, NOTE = 0.35, 0.45


def main_charts(report: Report) -> list[Chart]:
    """The first chart of every section, then the second ones, `MOST` in all; in the report's order."""
    sections = report.sections
    ranked = sorted((place, number) for number, each in enumerate(sections) for place in range(len(each.charts)))
    return [sections[number].charts[place] for place, number in sorted(ranked[:MOST], key=lambda each: each[::-1])]


def png(report: Report) -> bytes:
    """The bytes of a PNG file of two columns; each chart goes to the shorter one."""
    import matplotlib
    from matplotlib.figure import Figure

    columns: list[list[Chart]] = [[] for _ in range(min(COLUMNS, max(len(main_charts(report)), 1)))]
    for chart in main_charts(report):
        min(columns, key=_tall).append(chart)
    whole = max(map(_tall, columns)) or 1.0
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.1 * WIDTH * len(columns), whole), layout="constrained", facecolor="white")
        for place, charts in zip(figure.subfigures(1, len(columns), squeeze=False).flat, columns, strict=True):
            _column(place, charts, whole - _tall(charts))
        figure.savefig(stream, format="png", dpi=110, bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return stream.getvalue()


def _tall(charts: list[Chart]) -> float:
    return sum(TITLE + height(chart) + (NOTE if chart.note else 0.1) for chart in charts)


def _column(place: "SubFigure", charts: list[Chart], left: float) -> None:
    """Draws title, chart and note of each of `charts`; `left` inches at the bottom stay free."""
    heights = [part for chart in charts for part in (TITLE, height(chart), NOTE if chart.note else 0.1)]
    parts = place.subfigures(len(heights) + 1, 1, squeeze=False, height_ratios=[*heights, max(left, 0.01)])[:, 0]
    for i, chart in enumerate(charts):
        title, middle, note = parts[3 * i : 3 * i + 3]
        title.text(0.02, 0.25, clipped(chart.title, ACROSS), weight="bold")
        draw(middle.add_subplot(), chart)
        note.text(0.02, 0.9, textwrap.fill(chart.note, 88), fontsize=8, color=MUTED, va="top")

"""A report as one HTML file that loads nothing: no network, no script, no font."""

from importlib.resources import files

import edgekit
from edgekit.report.content import Report
from edgekit.report.numbers import text
from edgekit.report.palette import DARK, LIGHT
from edgekit.report.svg import svg


def render(report: Report) -> str:
    """The text of the page; the same report gives the same text."""
    from jinja2 import Environment, StrictUndefined

    template = files("edgekit.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    charts = {
        (section.name, i): svg(chart, f"{section.name}-{i}")
        for section in report.sections
        for i, chart in enumerate(section.charts)
    }
    return environment.from_string(template).render(
        report=report, charts=charts, cell=text, light=LIGHT, dark=DARK, version=edgekit.__version__
    )

"""A report as GitHub's Markdown: its tables, without charts."""

import re

from edgekit.report.content import Report, Table
from edgekit.report.numbers import text


def render(report: Report) -> str:
    """The Markdown text: warnings, then headings, tables and notes."""
    parts = [f"> **Warning:** {_escaped(warning)}" for warning in report.warnings]
    for section in report.sections:
        parts += [f"## {section.title}", _escaped(section.text)]
        for each in section.tables:
            parts += [f"**{_escaped(each.title)}**", table(each), _escaped(each.note)]
        parts.append("\n".join(f"- {_escaped(about)}: {_code(command)}" for about, command in section.commands))
    parts += [f"No data on {title.lower()}: {_code(command)} makes some." for title, command in report.missing]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(each: Table) -> str:
    """The lines of one table, numbers aligned right."""
    heads = [_escaped(f"{column.name}, {column.unit}" if column.unit else column.name) for column in each.columns]
    rules = ["---:" if column.number else "---" for column in each.columns]
    rows = [
        [_escaped(text(cell, column.suffix)) for cell, column in zip(row, each.columns, strict=True)]
        for row in each.rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rules, *rows])


def _escaped(words: str) -> str:
    """`words` escaped, so that Markdown shows them as they are."""
    for letter in "\\`*_|[]":
        words = words.replace(letter, f"\\{letter}")
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(words: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    padding = " " if len(fence) > 1 else ""
    return f"{fence}{padding}{words}{padding}{fence}"

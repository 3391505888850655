"""Markdown tables of cells that are text already."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> str:
    """`rows` beneath `heads`. `rule` is what stands between, beneath all heads but the first: "---:" aligns right."""
    rules = "|---|" + f"{rule}|" * (len(heads) - 1)
    return "\n".join([_line(heads), rules, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

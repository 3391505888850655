"""Numbers as text: three significant digits, commas between thousands, no exponents."""

from edgekit.report.content import Cell, Quantiles, Spread

MISSING = "\N{EN DASH}"


def text(cell: Cell, suffix: str = "") -> str:
    r"""The text of a table's cell.

    >>> [ascii(text(value)).strip("'") for value in (32769.7, 259.83, 12.04, 0.01234, 0, None)]
    ['32,770', '260', '12.0', '0.0123', '0', '\\u2013']
    >>> ascii(text(Spread(7.31, 7.2, 7.449), "x"))
    "'7.31x (7.20\\u20137.45)'"
    """
    if cell is None:
        return MISSING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Spread):
        middle, low, high = (number(value) for value in cell)
        return f"{middle}{suffix}" if low == middle == high else f"{middle}{suffix} ({low}{MISSING}{high})"
    return " / ".join(map(number, cell)) if isinstance(cell, Quantiles) else number(cell) + suffix


def number(value: float) -> str:
    """`value` with three significant digits, but all digits before the point; whole numbers as they are."""
    if value == int(value) and (isinstance(value, int) or value == 0 or abs(value) >= 1000):
        return f"{int(value):,}"
    for least, decimals in ((99.95, 0), (9.995, 1), (0.9995, 2), (0.09995, 3), (0.009995, 4)):
        if abs(value) >= least:
            return f"{value:,.{decimals}f}"
    return f"{value:.3g}"


def tick(value: float) -> str:
    """The text of a number beside an axis, as short as possible.

    >>> [tick(value) for value in (0.25, 1.0, 20.0, 1000.0, 20000.0, 2500000.0)]
    ['0.25', '1', '20', '1,000', '20k', '2.5M']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

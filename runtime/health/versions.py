"""Compares versions with the ranges of a device profile: "8.2.1", "10.13.x", "6.0.1 to 7.0", ">= 1.10".

>>> compare("8.2.1.8", parse("8.2.1")), compare("7.0.RC1", parse("6.0.1 to 7.0")), compare("1.9.3", parse(">= 1.10"))
(0, 0, -1)
"""

import re
from typing import NamedTuple, Optional, Tuple

from edgekit.errors import UsageError

Numbers = Tuple[int, ...]

# No number of a version has more digits.
_NUMBERS = r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,9}"
_EXACT = re.compile("({})(?:\\.x)?".format(_NUMBERS))
_BETWEEN = re.compile("({0}) to ({0})".format(_NUMBERS))
_FROM = re.compile(">= ?({})".format(_NUMBERS))


class Range(NamedTuple):
    """All versions from `low` on, up to `high` and those that begin with `high`; None for no upper end."""

    low: Numbers
    high: Optional[Numbers]


def parse(text: str) -> Range:
    """The range of `text`; a version alone means all versions that begin with it. UsageError for other texts."""
    exact, between, above = (each.fullmatch(text.strip()) for each in (_EXACT, _BETWEEN, _FROM))
    if exact:
        return Range(_split(exact.group(1)), _split(exact.group(1)))
    if above:
        return Range(_split(above.group(1)), None)
    if not between or _split(between.group(1)) > _split(between.group(2)):
        raise UsageError(
            "'{}' is no range of versions, expected one as 8.2.1, 10.13.x, 6.0.1 to 7.0 or >= 1.10".format(text[:80])
        )
    return Range(_split(between.group(1)), _split(between.group(2)))


def compare(version: str, wanted: Range) -> int:
    """-1 when `version` is below the range `wanted`, 1 above it, 0 inside. UsageError when it is no version."""
    found = re.match(_NUMBERS, version)
    if not found:
        raise UsageError("'{}' does not begin with a version, expected one as 8.2.1".format(version[:80]))
    numbers = _split(found.group()) + (0,) * 10
    if numbers[: len(wanted.low)] < wanted.low:
        return -1
    return 1 if wanted.high is not None and numbers[: len(wanted.high)] > wanted.high else 0


def _split(text: str) -> Numbers:
    return tuple(int(part) for part in text.split("."))

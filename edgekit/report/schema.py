"""Checks values from files against a schema."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from edgekit.errors import DataError

#: Largest figure that is taken as a measurement; axes could not show more.
MOST = 1e15


class Maybe(NamedTuple):
    """A schema for a value that may be null or missing."""

    schema: Any


class Kind(NamedTuple):
    """A schema for a plain value: its name in messages, and its test."""

    name: str
    fits: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and (isinstance(value, int) or math.isfinite(value)) and abs(value) <= MOST


TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _is_number)
AMOUNT = Kind("a number of 0 or more", lambda value: _is_number(value) and value >= 0)
COUNT = Kind("a whole number of 0 or more", lambda value: _is_number(value) and isinstance(value, int) and value >= 0)
#: Up to the year 9999.
TIME = Kind("seconds since 1970", lambda value: AMOUNT.fits(value) and value < 253402300800)
ANY = Kind("anything", lambda value: True)


def one_of(*texts: str) -> Kind:
    """The kind of a text that is one of `texts`."""
    return Kind(" or ".join(map(repr, texts)), lambda value: isinstance(value, str) and value in texts)


def check(value: Any, schema: Any, where: str) -> None:
    """Raises DataError, which names the place, unless `value` fits `schema`.

    A schema is a `Kind`, a `Maybe`, ``[schema]`` for a list, ``(schema, ...)`` for a list of that length,
    ``{"key": schema}`` for an object with these keys and perhaps others, or ``{str: schema}`` for one with any keys.
    """
    if isinstance(schema, Kind):
        if not schema.fits(value):
            raise DataError(f"{where} is {shown(value)}, expected {schema.name}")
    elif isinstance(schema, Maybe):
        if value is not None:
            check(value, schema.schema, where)
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            raise DataError(f"{where} is {shown(value)}, expected an object")
        if str in schema:
            schema = dict.fromkeys(value, schema[str])
        for key, part in schema.items():
            if key not in value and not isinstance(part, Maybe):
                raise DataError(f"{where} has no '{key}': it is damaged, or was not written by edgekit")
            check(value.get(key), part, f"{where}, {key}")
    else:
        length = len(schema) if isinstance(schema, tuple) else None
        if not isinstance(value, list) or length not in (None, len(value)):
            raise DataError(f"{where} is {shown(value)}, expected a list" + (f" of {length}" if length else ""))
        for i, each in enumerate(value):
            check(each, schema[i] if length else schema[0], f"{where}[{i}]")


def shown(value: Any) -> str:
    """`value` in a few words, for a message."""
    if isinstance(value, dict):
        return "an object with " + (", ".join(list(value)[:4]) + (" ..." if len(value) > 4 else "") or "no keys")
    if isinstance(value, list):
        return f"a list of {len(value)}"
    huge = isinstance(value, int) and abs(value) > MOST
    text = "nothing" if value is None else "a huge number" if huge else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

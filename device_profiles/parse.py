"""Reads a profile from a TOML file; a missing, unknown or wrong entry is a UsageError that names file and key."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edgekit.device_profiles.profile import RUNTIMES, Hardware, Profile, Target
from edgekit.errors import UsageError
from edgekit.providers import PROVIDERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The folder of operator lists that several profiles share; `target.operators` names one.
OPERATORS = Path(__file__).parent / "operators"


class _Kind(NamedTuple):
    """The kind of value that a key must have, in words and as a test."""

    expected: str
    fits: Callable[[Any], bool]


def _whole(low: int, high: int) -> _Kind:
    return _Kind(f"a whole number of {low} to {high}", lambda v: type(v) is int and low <= v <= high)


def _one_of(*words: str) -> _Kind:
    return _Kind("one of " + ", ".join(f'"{word}"' for word in words), lambda v: isinstance(v, str) and v in words)


def _matching(pattern: str, expected: str) -> _Kind:
    return _Kind(expected, lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


_TEXTS = _Kind("a list of texts, none of them twice", _is_texts)
_POSITIVE = _Kind("a number above 0", lambda v: type(v) in (int, float) and 0 < v < float("inf"))
_LIST = {"operators": _TEXTS, "sources": _TEXTS}
_TARGET = {
    "opset": _whole(7, 25),
    "ir_version": _whole(3, 13),
    "static": _Kind("true or false", lambda v: type(v) is bool),
    "rules": _TEXTS,
    "operators": _Kind(
        "a list of operators, or the name of a list that edgekit ships", lambda v: _is_text(v) or _is_texts(v)
    ),
    "precision": _one_of("float32", "float16"),
    "norm": _one_of("batch", "frozen"),
    "scores": _one_of("conv", "matmul"),
    "codebooks": _one_of("inputs", "initialisers"),
    "weights": _one_of("session", "refit", "rebuild"),
}
_HARDWARE = {
    "memory_gib": _POSITIVE,
    "bandwidth_gb_s": _POSITIVE,
    "peak_gflops": _POSITIVE,
    "cpu_cores": _whole(1, 1024),
    "cpu_gflops": _POSITIVE,
}
_PROFILE = {
    "name": _matching("[a-z0-9]+(-[a-z0-9]+)*", "lower-case words and numbers, joined by -"),
    "title": _Kind("a text", _is_text),
    "runtime": _one_of(*RUNTIMES),
    "python": _matching(r"3\.([6-9]|[1-9]\d)", 'a Python from "3.6" on'),
    "provider": _one_of(*PROVIDERS),
    "versions": _Kind("a table of texts", lambda v: isinstance(v, dict) and all(map(_is_text, v.values()))),
    "target": _Kind("a table", lambda v: isinstance(v, dict)),
    "hardware": _Kind("a table", lambda v: isinstance(v, dict)),
    "sources": _TEXTS,
}


def parse(path: Path) -> Profile:
    """The profile in the file at `path`. The sources of the operator list that it names are added to its own."""
    table = _table(path)
    _check(path, "", table, _PROFILE)
    _check(path, "target.", table["target"], _TARGET)
    _check(path, "hardware.", table["hardware"], _HARDWARE)
    version = RUNTIMES[table["runtime"]]
    if version not in table["versions"]:
        raise UsageError(
            f'{path}: versions.{version} is missing; with runtime "{table["runtime"]}" expected its version'
        )
    operators, sources = table["target"]["operators"], table["sources"]
    if isinstance(operators, str):
        operators, more = _operators(path, operators)
        sources = [*sources, *more]
    target = {**table["target"], "rules": tuple(table["target"]["rules"]), "operators": tuple(operators)}
    nested = {"target": Target(**target), "hardware": Hardware(**table["hardware"]), "sources": tuple(sources)}
    return Profile(**{**table, **nested})


def _operators(path: Path, name: str) -> tuple[list[str], list[str]]:
    """Operators and sources of the shared list `name`, which the profile at `path` names."""
    known = sorted(file.stem for file in OPERATORS.glob("*.toml"))
    if name not in known:
        raise UsageError(f'{path}: target.operators is "{name}"; expected one of {", ".join(known)}, or a list')
    table = _table(OPERATORS / f"{name}.toml")
    _check(OPERATORS / f"{name}.toml", "", table, _LIST)
    return table["operators"], table["sources"]


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read device profile {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def _check(path: Path, prefix: str, table: dict[str, Any], kinds: dict[str, _Kind]) -> None:
    for key in table:
        if key not in kinds:
            raise UsageError(f"{path}: unknown key {prefix}{key}; expected {', '.join(kinds)}")
    for key, kind in kinds.items():
        if key not in table:
            raise UsageError(f"{path}: {prefix}{key} is missing; expected {kind.expected}")
        if not kind.fits(table[key]):
            raise UsageError(f"{path}: {prefix}{key} is {table[key]!r}; expected {kind.expected}")

"""Compare: one measurement against an earlier one, result by result."""

import json
from typing import Any, NamedTuple

from edgekit.errors import UsageError
from edgekit.measure.record import FORMAT, VERSION


class Difference(NamedTuple):
    """One result in both records: images/s then and now, and whether the difference is within what repeats spread."""

    codec: str
    link: str
    in_flight: int
    before: float
    now: float
    within: bool


def load(path: str) -> dict[str, Any]:
    """The measure record in the file `path`; UsageError for anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON: expected a record that `edgekit measure --json FILE` wrote") from None
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise UsageError(f"{path} holds {found!r}, expected format {FORMAT!r}, version {VERSION}")
    return record


def compare(now: dict[str, Any], before: dict[str, Any]) -> list[Difference]:
    """Every result of `now` that `before` has too.

    Within: the ranges from lowest to highest of the repeats of both overlap. UsageError when the two have no result in
    common.
    """
    old = {_key(result): result["images_per_s"] for result in before["results"]}
    found = []
    for result in now["results"]:
        if _key(result) in old:
            rate, earlier = result["images_per_s"], old[_key(result)]
            within = rate["low"] <= earlier["high"] and earlier["low"] <= rate["high"]
            found.append(Difference(*_key(result), earlier["median"], rate["median"], within))
    if not found:
        raise UsageError("the two records have no codec, link and batches in flight in common")
    return found


def other_settings(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What differs between the two besides time: settings, codecs and machine, in words."""
    pairs = [(f"setting {key}", value, before["setting"].get(key)) for key, value in now["setting"].items()]
    shared = set(now["codecs"]) & set(before["codecs"])
    pairs += [(f"codec {key}", *(r["codecs"][key]["method"] for r in (now, before))) for key in sorted(shared)]
    for side in now["machine"]:
        here, there = now["machine"][side], before["machine"].get(side, {})
        pairs += [(f"{side} {key}", here[key], there.get(key)) for key in ("processor", "cores", "python", "versions")]
    return [f"{name}: {here} now, {there} before" for name, here, there in pairs if here != there]


def _key(result: dict[str, Any]) -> tuple[str, str, int]:
    return result["codec"], result["link"], result["in_flight"]

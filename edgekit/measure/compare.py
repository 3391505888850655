"""Compares a measurement with an earlier one, result by result."""

from collections.abc import Collection
from typing import Any, NamedTuple

from edgekit.errors import UsageError
from edgekit.report import records


class Difference(NamedTuple):
    """One result in both records: images/s then and now, and whether the repeats' ranges overlap."""

    codec: str
    link: str
    in_flight: int
    before: float
    now: float
    within: bool | None


def load(path: str) -> dict[str, Any]:
    """The measure record in the file `path`; UsageError for anything else, DataError for a damaged one."""
    found = records.read(path)
    if not isinstance(found, records.Measure):
        raise UsageError(f"{path} holds another kind of record: expected one that `edgekit measure --out FILE` wrote")
    return found.data


def check_common(
    earlier: dict[str, Any], codecs: Collection[str], links: Collection[str], depths: Collection[int]
) -> None:
    """Raises UsageError unless some result of `earlier` is to be measured again."""
    old = [_key(result) for result in earlier["results"]]
    if not any(codec in codecs and link in links and depth in depths for codec, link, depth in old):
        raise UsageError(
            "the earlier record has nothing that is measured now: it has "
            + ", ".join(sorted({f"{codec} over {link} with {depth} in flight" for codec, link, depth in old}))
        )


def compare(now: dict[str, Any], before: dict[str, Any]) -> list[Difference]:
    """The differences of all results that are in both records.

    `within` says whether the repeats' ranges, lowest to highest, overlap; None when there is only one repeat.
    """
    old = {_key(result): result["images_per_s"] for result in before["results"]}
    found = []
    for result in now["results"]:
        if _key(result) in old:
            rate, earlier = result["images_per_s"], old[_key(result)]
            within = None
            if min(rate["n"], earlier["n"]) > 1:
                within = rate["low"] <= earlier["high"] and earlier["low"] <= rate["high"]
            found.append(Difference(*_key(result), earlier["median"], rate["median"], within))
    return found


def other_settings(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The differences in settings, codecs and machine between the two records, in words."""
    pairs = [(f"setting {key}", value, before["setting"].get(key)) for key, value in now["setting"].items()]
    shared = now["codecs"].keys() & before["codecs"].keys()
    pairs += [(f"codec {key}", *(r["codecs"][key]["method"] for r in (now, before))) for key in sorted(shared)]
    for side in now["machine"]:
        here, there = now["machine"][side], before["machine"].get(side, {})
        pairs += [
            (f"{side} {key}", here.get(key), there.get(key)) for key in ("processor", "cores", "python", "versions")
        ]
    return [f"{name}: {here} now, {there} before" for name, here, there in pairs if here != there]


def _key(result: dict[str, Any]) -> tuple[str, str, int]:
    return result["codec"], result["link"], result["in_flight"]

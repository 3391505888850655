"""The record of the time to an accuracy: what docs/record.md describes, from trainings that are done."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.errors import UsageError
from edgekit.link.link import Link
from edgekit.machine import version
from edgekit.measure.line_time import computed
from edgekit.measure.record import NOISY_OTHERS
from edgekit.report.records import TO_ACCURACY, VERSION, ToAccuracy, read

Row = dict[str, Any]
#: Where a training's seconds over a line come from.
COMPUTED, MEASURED = "computed", "measured"
#: Of a machine, what must be the same for two trainings to be compared, beside the versions of its packages.
SAME = ("processor", "cores", "python")


def record(
    setting: Row,
    line: str,
    accuracies: Sequence[float],
    codecs: Row,
    links: Mapping[str, Link | None],
    trainings: Sequence[Row],
    machine: Row | None,
    command: Sequence[str],
    when: str,
    failed: str | None = None,
) -> Row:
    """The record. `line` is COMPUTED or MEASURED, `accuracies` are those asked for, in percent; `when` is UTC in ISO
    8601; `failed` says why it is incomplete. The first of `codecs` is what the others are compared with."""
    return {
        "format": TO_ACCURACY,
        "version": VERSION,
        "command": list(command),
        "time": when,
        "line": line,
        "accuracies": list(accuracies),
        "against": next(iter(codecs)),
        "setting": setting,
        "machine": machine,
        "codecs": codecs,
        "links": {name: link._asdict() if link else None for name, link in links.items()},
        "trainings": list(trainings),
        "results": summarise(line, accuracies, codecs, links, trainings),
        "warnings": [f"not complete: {failed}"] * bool(failed) + warnings(trainings),
    }


def summarise(
    line: str,
    accuracies: Sequence[float],
    codecs: Row,
    links: Mapping[str, Link | None],
    trainings: Sequence[Row],
) -> list[Row]:
    """One result for each link and codec: its seconds after each tested epoch, its best accuracy, and for each of
    `accuracies` the first tested epoch that reached it, or None. Nothing is interpolated between epochs.

    "times" is the first codec's seconds over these; None where one of the two never got there.
    """
    by_key = {(each["codec"], each["link"]): each["epochs"] for each in trainings}
    found = []
    for name, link in links.items():
        first: list[Row] = []
        for codec in codecs:
            epochs = by_key.get((codec, None if line == COMPUTED else name))
            if epochs is None:
                continue
            seconds = [computed(each, link) if line == COMPUTED else each["seconds"]["train"] for each in epochs]
            reached = [_reached(wanted, epochs, seconds) for wanted in accuracies]
            if codec == next(iter(codecs)):
                first = reached
            for i, each in enumerate(reached):
                both = first and first[i]["seconds"] is not None and each["seconds"] is not None
                each["times"] = first[i]["seconds"] / each["seconds"] if both else None
            best = max(epochs, key=lambda each: each["accuracy"])
            found.append(
                {
                    "codec": codec,
                    "link": name,
                    "seconds": seconds,
                    "best": {"accuracy": best["accuracy"], "epoch": best["epoch"]},
                    "reached": reached,
                }
            )
    return found


def _reached(wanted: float, epochs: Sequence[Row], seconds: Sequence[float]) -> Row:
    for each, until in zip(epochs, seconds, strict=True):
        if each["accuracy"] >= wanted:
            names = ("epoch", "images", "bytes_up", "bytes_down")
            return {"accuracy": wanted, "seconds": until, **{name: each[name] for name in names}}
    return {"accuracy": wanted, **dict.fromkeys(("seconds", "epoch", "images", "bytes_up", "bytes_down"))}


def warnings(trainings: Sequence[Row]) -> list[str]:
    """Warnings that a reader has to know before trusting the figures."""
    found = []
    busy = [each["others_cpu"] for each in trainings if each["others_cpu"] is not None]
    if busy and statistics.median(busy) > NOISY_OTHERS:
        found.append(
            f"other processes took {statistics.median(busy):.0%} of the processors meanwhile: end them, measure again"
        )
    for each in trainings:
        if each["collapsed"]:
            found.append(f"{each['codec']}: training collapsed: {each['collapsed']}")
    return found


def resumed(path: str, line: str, setting: Row, methods: Mapping[str, str], links: Mapping[str, Any], here: Row) -> Row:
    """The record in the file `path`, to keep its trainings; UsageError where they do not go with what is asked.

    `methods` is name -> method, `here` this machine. Accuracies may be others than those of the file, and links too
    where seconds are computed.
    """
    found = read(path)
    if not isinstance(found, ToAccuracy):
        raise UsageError(f"{path} holds another kind of record: expected one of `edgekit measure --to-accuracy`")
    earlier = found.data
    pairs: list[tuple[str, Any, Any]] = [("--line", line, earlier["line"])]
    # Cut and feature are known only after an export, unless they are asked for.
    told = {key: value for key, value in setting.items() if key not in ("cut", "feature") or value is not None}
    pairs += [(f"{key} of", value, earlier["setting"].get(key)) for key, value in told.items()]
    there = earlier["machine"] or {}
    pairs += [(key, here[key], there.get(key)) for key in SAME]
    pairs += [(name, version(name), before) for name, before in there.get("versions", {}).items()]
    pairs += [
        (f"method {name}", methods[name], about["method"]) for name, about in earlier["codecs"].items()
        if name in methods
    ]  # fmt: skip
    for what, now, before in pairs:
        if now != before:
            raise UsageError(f"{path} was made with {what} {before}, now it is {now}: leave --resume out")
    for each in earlier["trainings"]:
        for what, known in (("codec", methods), ("link", links)):
            if each[what] is not None and each[what] not in known:
                raise UsageError(f"{path} has a training of {what} {each[what]}: name it in --{what}s too")
    return earlier

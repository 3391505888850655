"""Reads the records of `edgekit measure`, `edgekit train` and `bench/accuracy.py`; the content tells the kind."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgekit.errors import DataError, UsageError
from edgekit.report import kinds
from edgekit.report.schema import check, shown

#: "format" and "version" of a record that `edgekit measure` writes.
FORMAT, VERSION = "edgekit-measure", 1
#: "format" of one that `edgekit measure --devices` writes; its version is counted alike.
SCALING = "edgekit-scaling"
#: The same of one that `edgekit measure --to-accuracy` writes.
TO_ACCURACY = "edgekit-to-accuracy"
EXPECTED = (
    "expected a record of `edgekit measure`, the record.jsonl of `edgekit train --out DIR` or `edgekit federate --out "
    "DIR`, or a list of accuracy rows (bench/accuracy.py)"
)
#: Fields that only `edgekit plan` writes: its result, the table of boards and links, the validation.
PLANS = ({"board", "predictions"}, {"rows", "device_time"}, {"predicted_images_per_s"})

Row = dict[str, Any]


class Measure(NamedTuple):
    """One record of `edgekit measure`."""

    path: str
    data: Row


class Scaling(NamedTuple):
    """One record of `edgekit measure --devices`."""

    path: str
    data: Row


class ToAccuracy(NamedTuple):
    """One record of `edgekit measure --to-accuracy`."""

    path: str
    data: Row


class Training(NamedTuple):
    """One run of `edgekit train`; `summary` is None if the run did not finish."""

    path: str
    run: Row
    #: The "epoch" events of the devices.
    epochs: list[Row]
    summary: Row | None
    #: The "tested" events of the server; older records have none.
    tested: list[Row]
    #: Device -> why the server put it in quarantine.
    quarantined: dict[str, str]


class Federated(NamedTuple):
    """One run of `edgekit federate`, with the events of its rounds; `ended` is False where it did not finish."""

    path: str
    run: Row
    rounds: list[Row]
    ended: bool


class Accuracy(NamedTuple):
    """One table of accuracy rows."""

    path: str
    rows: list[Row]


Record = Measure | Training | Accuracy | Scaling | ToAccuracy | Federated


class Records(NamedTuple):
    """All records of a report, in the order given."""

    measures: list[Measure]
    trainings: list[Training]
    accuracies: list[Accuracy]
    scalings: list[Scaling]
    to_accuracies: list[ToAccuracy]
    federated: Sequence[Federated] = ()


def load(paths: Sequence[str]) -> Records:
    """All records of `paths`; a folder stands for the record.jsonl in it.

    UsageError for a path that cannot be read, a file twice, or a kind of record that has no place in a report;
    DataError for a damaged one.
    """
    federated: list[Federated] = []
    found = Records([], [], [], [], [], federated)
    seen: dict[str, str] = {}
    for given in paths:
        path = os.path.join(given, "record.jsonl") if os.path.isdir(given) else given
        if os.path.realpath(path) in seen:
            raise UsageError(f"{given} is the same file as {seen[os.path.realpath(path)]}: give it once")
        seen[os.path.realpath(path)] = given
        record = read(path)
        if isinstance(record, Measure):
            found.measures.append(record)
        elif isinstance(record, Training):
            found.trainings.append(record)
        elif isinstance(record, Scaling):
            found.scalings.append(record)
        elif isinstance(record, ToAccuracy):
            found.to_accuracies.append(record)
        elif isinstance(record, Federated):
            federated.append(record)
        else:
            found.accuracies.append(record)
    return found


def read(path: str) -> Record:
    """The record in file `path`."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {EXPECTED}") from None
    return parse(data, path)


def parse(data: bytes, path: str) -> Record:
    """The record in the bytes of a file; `path` is its name in messages."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: byte {error.start} is not UTF-8; {EXPECTED}") from None
    lines = [line for line in text.split("\n") if line.strip()]
    first = lines[0] if lines else ""
    # A training record has an object a line, every other kind is one value.
    if '"event"' in first:
        start = _json(first, f"{path}, line 1")
        if isinstance(start, dict) and "event" in start:
            return (_federated if "strategy" in start else _training)(start, lines, path)
    value = _json(text, path)
    if isinstance(value, dict) and value.get("format") == FORMAT:
        return _measure(value, path)
    if isinstance(value, dict) and value.get("format") == SCALING:
        return _scaling(value, path)
    if isinstance(value, dict) and value.get("format") == TO_ACCURACY:
        return _to_accuracy(value, path)
    if isinstance(value, dict) and any(marks <= set(value) for marks in PLANS):
        raise UsageError(f"{path} is a record of `edgekit plan`, which predicts: a report is of what was measured")
    if isinstance(value, list) and value and isinstance(value[0], dict) and "method" in value[0]:
        check(value, kinds.ACCURACY, path)
        for i, row in enumerate(value):
            if any(len(point) < 2 for point in row.get("curve") or []):
                raise DataError(f"{path}[{i}], curve: a point has no accuracy, expected [images, accuracy, loss]")
        return Accuracy(path, value)
    raise UsageError(f"{path} is no record for a report: got {shown(value)}; {EXPECTED}")


def _measure(value: Row, path: str) -> Measure:
    _check_version(value, path)
    check(value, kinds.MEASURE, path)
    _check_named(value, ("cells", "results", "encoding"), path)
    return Measure(path, value)


def _scaling(value: Row, path: str) -> Scaling:
    _check_version(value, path)
    check(value, kinds.SCALING, path)
    _check_named(value, ("results",), path)
    for i, row in enumerate(value["results"]):
        if not row["devices"]:
            raise DataError(f"{path}, results[{i}] is of 0 devices, expected at least 1")
    return Scaling(path, value)


def _to_accuracy(value: Row, path: str) -> ToAccuracy:
    _check_version(value, path)
    check(value, kinds.TO_ACCURACY, path)
    _check_named(value, ("trainings", "results"), path)
    lengths = {(each["codec"], each.get("link")): len(each["epochs"]) for each in value["trainings"]}
    for i, row in enumerate(value["results"]):
        training = row["codec"], row["link"] if value["line"] == "measured" else None
        if lengths.get(training) != len(row["seconds"]) or not row["seconds"]:
            raise DataError(
                f"{path}, results[{i}] has seconds of {len(row['seconds'])} epochs, expected those of a training with "
                f"at least 1: got {lengths.get(training)}"
            )
        if len(row["reached"]) != len(value["accuracies"]):
            raise DataError(f"{path}, results[{i}], reached: expected an entry for each of 'accuracies'")
    return ToAccuracy(path, value)


def _check_version(value: Row, path: str) -> None:
    if value.get("version") != VERSION:
        raise UsageError(
            f"{path} is an {value['format']} record of version {value.get('version')}, this edgekit reads version "
            f"{VERSION}: measure again, or install the edgekit that wrote it"
        )


def _check_named(value: Row, parts: Sequence[str], path: str) -> None:
    """DataError where a row of `parts` is of a codec or link that the record does not describe."""
    for part in parts:
        for i, row in enumerate(value.get(part) or []):
            for key, table in (("codec", "codecs"), ("link", "links")):
                if row.get(key) is not None and row[key] not in value[table]:
                    raise DataError(f"{path}, {part}[{i}] is of {key} '{row[key]}', which '{table}' does not have")


def _training(start: Row, lines: list[str], path: str) -> Training:
    events = [start, *(_json(line, f"{path}, line {i}") for i, line in enumerate(lines[1:], 2))]
    if start["event"] != "start":
        raise DataError(f"{path} starts with event {shown(start['event'])}, expected 'start': its first lines are gone")
    check(start, kinds.RUN, f"{path}, line 1")
    epochs: list[Row] = []
    tested: list[Row] = []
    summary, again = None, False
    quarantined: dict[str, str] = {}
    for i, event in enumerate(events, 1):
        where = f"{path}, line {i}"
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise DataError(f"{where} is {shown(event)}, expected an object with an 'event'")
        if event["event"] == "epoch":
            check(event, kinds.EPOCH, where)
            _append(epochs, event, ("device", "epoch"), again)
        elif event["event"] == "tested":
            check(event, kinds.TESTED, where)
            _append(tested, event, ("epoch",), again)
        elif event["event"] == "went_back":
            again = True
        elif event["event"] == "quarantined":
            check(event, kinds.QUARANTINED, where)
            quarantined[event["device"]] = event["reason"]
        elif event["event"] == "summary":
            check(event, kinds.SUMMARY, where)
            summary = event
            quarantined.update(event.get("quarantined") or {})
    # The summary has what the processes chose by themselves, such as the gradient codec.
    return Training(path, {**start, **(summary or {})}, epochs, summary, tested, quarantined)


def _federated(start: Row, lines: list[str], path: str) -> Federated:
    check(start, kinds.FEDERATED, f"{path}, line 1")
    rounds: list[Row] = []
    ended = False
    for i, line in enumerate(lines[1:], 2):
        event = _json(line, f"{path}, line {i}")
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise DataError(f"{path}, line {i} is {shown(event)}, expected an object with an 'event'")
        if event["event"] == "round":
            check(event, kinds.FEDERATED_ROUND, f"{path}, line {i}")
            rounds.append(event)
        ended |= event["event"] == "summary"
    return Federated(path, start, rounds, ended)


def _append(rows: list[Row], row: Row, keys: Sequence[str], again: bool) -> None:
    """Appends `row`; of a run that went back (`again`) it takes the place of the one that has the same `keys`."""
    if again:
        rows[:] = [each for each in rows if any(each[key] != row[key] for key in keys)]
    rows.append(row)


def _json(text: str, where: str) -> Any:
    try:
        return _printable(json.loads(text))
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is no JSON at character {error.pos}: {error.msg}; {EXPECTED}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON a record could be: {error}") from None


def _printable(value: Any) -> Any:
    """`value` with unprintable characters (control characters, lone surrogates) replaced in every text."""
    if isinstance(value, str):
        return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value

"""Records are told apart by content; damaged ones give typed errors that name the place."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError, EdgekitError, UnknownName, UsageError
from edgekit.report import markdown
from edgekit.report.build import build
from edgekit.report.records import (
    Accuracy,
    Measure,
    Record,
    Records,
    Scaling,
    ToAccuracy,
    Training,
    load,
    parse,
)  # fmt: skip

RESULTS = Path(__file__).parents[2] / "bench" / "results"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def lines(events: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def records(*parsed: Record) -> Records:
    return Records(
        [each for each in parsed if isinstance(each, Measure)],
        [each for each in parsed if isinstance(each, Training)],
        [each for each in parsed if isinstance(each, Accuracy)],
        [each for each in parsed if isinstance(each, Scaling)],
        [each for each in parsed if isinstance(each, ToAccuracy)],
    )


def test_each_kind_is_known(
    measure: dict[str, Any], run: list[dict[str, Any]], scaling: dict[str, Any], to_accuracy: dict[str, Any]
) -> None:
    assert isinstance(parse(json.dumps(to_accuracy).encode(), "t"), ToAccuracy)
    assert isinstance(parse(json.dumps(scaling).encode(), "s"), Scaling)
    assert isinstance(parse(json.dumps(measure).encode(), "m"), Measure)
    training = parse(lines(run), "r")
    assert isinstance(training, Training) and training.summary and len(training.epochs) == 6
    assert isinstance(parse((RESULTS / "accuracy.json").read_bytes(), "a"), Accuracy)


@pytest.mark.parametrize("name", sorted(path.name for path in RESULTS.glob("*.jsonl")))
def test_committed_runs_are_read(name: str) -> None:
    training = parse((RESULTS / name).read_bytes(), name)
    assert isinstance(training, Training) and training.summary


def test_a_folder_is_its_record(run: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_bytes(lines(run))
    assert load([str(tmp_path)]).trainings[0].path == str(tmp_path / "record.jsonl")
    with pytest.raises(UsageError, match="is the same file as"):
        load([str(tmp_path), str(tmp_path / "record.jsonl")])


@pytest.mark.parametrize("name", ["plan.json", "plan-vgg11.json"])
def test_a_plan_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="record of `edgekit plan`, which predicts"):
        load([str(RESULTS / name)])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", DataError, "is no JSON at character 0"),
        (b"\xff\xfe", DataError, "byte 0 is not UTF-8"),
        (b"[" * 100000, DataError, "no JSON a record could be"),
        (b"1" * 10000, DataError, "no JSON a record could be"),
        (b"[]", UsageError, "got a list of 0; expected a record of `edgekit measure`"),
        (b'{"b": 1, "a": 2}', UsageError, "got an object with b, a; expected"),
        (b'{"format": "edgekit-measure", "version": 2}', UsageError, "of version 2, this edgekit reads version 1"),
        (b'{"format": "edgekit-scaling", "version": 0}', UsageError, "an edgekit-scaling record of version 0, this"),
        (b'{"event": "epoch"}\n', DataError, "starts with event 'epoch', expected 'start'"),
        (b'{"event": "start"}\n', DataError, "line 1 has no 'model'"),
        (b'{"event": "start", "model": "m", "codec": "c"}\n{"eve', DataError, "line 2 is no JSON"),
        (b'[{"method": "m"}]', DataError, r"r\[0\] has no 'model'"),
    ],
)  # fmt: skip
def test_messages(content: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse(content, "r")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("setting", "model"), 3, "r, setting, model is 3, expected text"),
        (("cells", 0, "images"), -1, r"r, cells\[0\], images is -1, expected a whole number of 0 or more"),
        (("results", 2, "images_per_s", "low"), None, r"images_per_s, low is nothing, expected a number"),
        (("results", 0, "images_per_s", "low"), float("inf"), "low is inf, expected"),
        (("results", 0, "codec"), "sgx", r"results\[0\] is of codec 'sgx', which 'codecs' does not have"),
        (("cells", 0, "link"), "2mbit", "of link '2mbit', which 'links' does not have"),
        (("links",), [], "r, links is a list of 0, expected an object"),
        (("warnings",), "none", "r, warnings is 'none', expected a list"),
    ],
)
def test_damage_is_located(measure: dict[str, Any], path: tuple[Any, ...], value: Any, message: str) -> None:
    place: Any = measure
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=message):
        parse(json.dumps(measure).encode(), "r")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("results", 0, "devices"), 0, r"results\[0\] is of 0 devices"),
        (("results", 1, "link"), "1mbit", r"results\[1\] is of link '1mbit', which 'links' does not have"),
        (("results", 1, "mode"), None, "mode is nothing, expected text"),
    ],
)
def test_damage_of_scaling_is_located(scaling: dict[str, Any], path: tuple[Any, ...], value: Any, message: str) -> None:
    scaling[path[0]][path[1]][path[2]] = value
    with pytest.raises(DataError, match=message):
        parse(json.dumps(scaling).encode(), "r")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("line",), "guessed", "line is 'guessed', expected 'computed' or 'measured'"),
        (("line",), "measured", r"results\[0\] has seconds of 3 epochs, expected .*: got None"),
        (("results", 1, "seconds"), [1.0], r"results\[1\] has seconds of 1 epochs, expected .*: got 3"),
        (("results", 1, "reached"), [], r"results\[1\], reached: expected an entry for each"),
        (("results", 0, "link"), "2mbit", "of link '2mbit', which 'links' does not have"),
        (("trainings", 0, "codec"), "pq", "of codec 'pq', which 'codecs' does not have"),
        (("trainings", 0, "epochs", 0, "accuracy"), None, "accuracy is nothing, expected a number"),
    ],
)
def test_damage_of_a_time_to_an_accuracy_is_located(
    to_accuracy: dict[str, Any], path: tuple[Any, ...], value: Any, message: str
) -> None:
    place: Any = to_accuracy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=message):
        parse(json.dumps(to_accuracy).encode(), "r")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load([str(tmp_path / "none.json")])


def test_unknown_section(measure: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match="unknown section 'sped': did you mean speed"):
        build(records(parse(json.dumps(measure).encode(), "m")), ["sped"])


def shown(parsed: Record) -> None:
    """All that is made of a record before it is drawn."""
    report = build(records(parsed))
    assert markdown.render(report) and json.dumps(report.to_json(), allow_nan=False)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_record_or_a_typed_error(data: bytes) -> None:
    try:
        shown(parse(data, "r"))
    except EdgekitError as error:
        assert str(error)


def places(value: Any) -> list[tuple[Any, ...]]:
    """Every path into a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(key, *rest) for key in keys for rest in [(), *places(value[key])]]


def small(measure: dict[str, Any]) -> dict[str, Any]:
    """One of every kind of row."""
    codecs, links = {"sgq", "uq"}, {"1mbit", "loopback"}
    cut = {key: measure[key][:1] for key in ("cells", "encoding")}
    cut["results"] = [row for row in measure["results"] if row["codec"] in codecs and row["link"] in links]
    return {**measure, **cut}


def damaged(value: Any, data: st.DataObject) -> Any:
    """`value` with one place gone or replaced."""
    value = copy.deepcopy(value)
    *path, last = data.draw(st.sampled_from(places(value)))
    inner = value
    for key in path:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(JSON | st.just(0) | st.just(1e300))
    else:
        del inner[last]
    return value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damaged_measure_gives_a_report_or_a_typed_error(measure: dict[str, Any], data: st.DataObject) -> None:
    try:
        shown(parse(json.dumps(damaged(small(measure), data)).encode(), "r"))
    except EdgekitError as error:
        assert str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damaged_run_gives_a_report_or_a_typed_error(run: list[dict[str, Any]], data: st.DataObject) -> None:
    try:
        shown(parse("".join(json.dumps(event) + "\n" for event in damaged(run, data)).encode(), "r"))
    except EdgekitError as error:
        assert str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damaged_fleet_gives_a_report_or_a_typed_error(
    fleet_run: list[dict[str, Any]], data: st.DataObject
) -> None:
    try:
        shown(parse("".join(json.dumps(event) + "\n" for event in damaged(fleet_run, data)).encode(), "r"))
    except EdgekitError as error:
        assert str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damaged_scaling_gives_a_report_or_a_typed_error(scaling: dict[str, Any], data: st.DataObject) -> None:
    try:
        shown(parse(json.dumps(damaged({**scaling, "results": scaling["results"][:2]}, data)).encode(), "r"))
    except EdgekitError as error:
        assert str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damaged_time_to_an_accuracy_gives_a_report_or_a_typed_error(
    to_accuracy: dict[str, Any], data: st.DataObject
) -> None:
    try:
        shown(parse(json.dumps(damaged(to_accuracy, data)).encode(), "r"))
    except EdgekitError as error:
        assert str(error)


@settings(deadline=None)
@given(st.data())
def test_any_damaged_accuracy_gives_a_report_or_a_typed_error(data: st.DataObject) -> None:
    rows = json.loads((RESULTS / "accuracy.json").read_text(encoding="utf-8"))[:3]
    try:
        shown(parse(json.dumps(damaged(rows, data)).encode(), "r"))
    except EdgekitError as error:
        assert str(error)

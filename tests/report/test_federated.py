"""The section on federated learning, from records as `edgekit federate` writes them."""

import json
from typing import Any

import pytest

from edgekit.errors import DataError
from edgekit.report import markdown
from edgekit.report.build import build
from edgekit.report.content import Plot, Report
from edgekit.report.records import Federated, Records, parse


def record(events: list[dict[str, Any]]) -> Federated:
    found = parse("".join(json.dumps(event) + "\n" for event in events).encode(), "r")
    assert isinstance(found, Federated)
    return found


def report(*runs: Federated) -> Report:
    return build(Records([], [], [], [], [], runs))


def test_table_and_curves(federated: list[dict[str, Any]]) -> None:
    start, *rounds = federated
    other = {**start, "update_codec": "quantised", "down_codec": "quantised", "strategy": "fedadam:lr=1"}
    made = report(record(federated), record([other, *rounds]))
    assert made.title == "edgekit: vgg11_thin" and not made.warnings
    (section,) = [each for each in made.sections if each.name == "federated"]
    first, second = section.tables[0].rows
    assert first == ["vgg11_thin, digits", "fsfl", 2, 3, 40.0, 50.0, 3.0, 1.5, 12.0, 4.0, 1.0]
    assert second[1] == "quantised, down quantised, fedadam:lr=1"
    by_round, by_bytes = section.charts
    assert isinstance(by_round, Plot) and isinstance(by_bytes, Plot)
    assert (list(by_round.series[0].x), list(by_round.series[0].y)) == ([1, 3], [50.0, 40.0])
    assert list(by_bytes.series[0].x) == [5.0, 15.0] and by_bytes.log_x
    assert "edgekit federate vgg11_thin" in markdown.render(made)


def test_a_run_that_was_stopped_is_told(federated: list[dict[str, Any]]) -> None:
    assert report(record(federated[:2])).warnings == ["r has no summary: the run did not come to its end"]


@pytest.mark.parametrize("event", [{"event": "round", "round": 1}, {"no": "event"}, 3])
def test_what_is_damaged_is_an_error(event: Any, federated: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="line 2"):
        record([federated[0], event])

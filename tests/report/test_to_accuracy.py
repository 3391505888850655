"""The section on the time to an accuracy, against the figures of conftest.py."""

import json
from typing import Any

from edgekit.report import markdown
from edgekit.report.build import build
from edgekit.report.content import Plot, Section
from edgekit.report.records import Records, ToAccuracy, parse


def section(*contents: dict[str, Any]) -> Section:
    parsed = [parse(json.dumps(content).encode(), "r") for content in contents]
    records = Records([], [], [], [], [each for each in parsed if isinstance(each, ToAccuracy)])
    (found,) = build(records, ["to-accuracy"]).sections
    return found


def test_table(to_accuracy: dict[str, Any]) -> None:
    (table,) = section(to_accuracy).tables
    assert table.title == "Time to an accuracy: vgg11, digits, cpu, computed"
    heads = ["link", "accuracy", "method", "time, computed", "against uq", "both ways", "up", "down", "epochs"]
    assert [each.name for each in table.columns] == heads
    never = ["never: not in 3 epochs, best 76.0 %", None, None, None, None, None]
    assert table.rows[:4] == [
        ["1mbit", 75.0, "uq", 200.0, 1.0, 8.0, 2.0, 6.0, 2],
        ["1mbit", 75.0, "sgq", 15.0, 13.5, 0.15 + 0.45, 0.15, 0.45, 3],
        ["1mbit", 80.0, "uq", 300.0, 1.0, 12.0, 3.0, 9.0, 3],
        ["1mbit", 80.0, "sgq", *never],
    ]
    assert [row[0] for row in table.rows[4:]] == ["10mbit"] * 4 and table.note.startswith("Seconds are computed")


def test_curves_over_each_line_and_over_bytes(to_accuracy: dict[str, Any]) -> None:
    charts = section(to_accuracy).charts
    assert [chart.title.split(":")[0] for chart in charts] == [
        "Accuracy over 1mbit", "Accuracy over 10mbit", "Accuracy against bytes",
    ]  # fmt: skip
    first, _, last = charts
    assert isinstance(first, Plot) and isinstance(last, Plot)
    assert first.log_x and first.x_label == "training time over 1mbit, computed, s"
    uq, sgq, *dashed = first.series
    assert (uq.name, uq.x, uq.y) == ("uq", [100, 200, 300], [60.0, 75.0, 82.0])
    assert (sgq.name, sgq.x) == ("sgq", [5, 10, 15]) and uq.colour != sgq.colour
    # The accuracies that were asked for, from the first point to the last.
    assert [(each.style, each.x, each.y) for each in dashed] == [
        ("limit", [5, 300], [75.0, 75.0]), ("limit", [5, 300], [80.0, 80.0]),
    ]  # fmt: skip
    assert first.note == "Dashed: 75 %, 80 %."
    assert last.x_label == "sent both ways, MB" and last.series[1].x == [0.2, 0.4, 0.6]


def test_seconds_of_two_kinds_are_never_in_one_table(to_accuracy: dict[str, Any]) -> None:
    measured = {**to_accuracy, "line": "measured"}
    measured["trainings"] = [
        {**each, "link": link} for each in to_accuracy["trainings"] for link in to_accuracy["links"]
    ]
    found = section(to_accuracy, measured)
    assert [each.title.rpartition(", ")[2] for each in found.tables] == ["computed", "measured"]
    assert [each.columns[3].name for each in found.tables] == ["time, computed", "time, measured"]
    assert found.tables[1].note == "Seconds are measured: the trainings ran over the emulated line."
    plots = [chart for chart in found.charts if isinstance(chart, Plot)]
    labels = [chart.x_label.split(", ")[1] for chart in plots if "time" in chart.x_label]
    assert labels == ["computed", "computed", "measured", "measured"]
    # What a method sends is the same over all lines: one curve each.
    assert [len(chart.series) for chart in plots if "MB" in chart.x_label] == [4, 4]


def test_rates_that_were_measured_apart_are_told(to_accuracy: dict[str, Any]) -> None:
    apart = {**to_accuracy, "rates": {"images_per_s": {"uq": 100.0}}}
    assert "trainings ran in one process" in section(apart).tables[0].note
    assert "one process" not in section(to_accuracy).tables[0].note


def test_warnings_machine_and_commands(to_accuracy: dict[str, Any]) -> None:
    to_accuracy["trainings"][0]["command"] = ["python", "bench/accuracy.py"]
    made = build(Records([], [], [], [], [ToAccuracy("r", to_accuracy)]))
    assert made.title == "edgekit: vgg11"
    assert made.warnings == ["vgg11, digits, cpu, computed: the machine was busy"]
    assert made.sections[-1].commands == [
        ("to an accuracy, vgg11, digits, cpu, computed, 2026-11-28T06:00:00Z",
         "edgekit measure vgg11 --to-accuracy 75,80 --line computed"),
        ("training of uq", "python bench/accuracy.py"),
    ]  # fmt: skip
    assert "| 1mbit | 80.0 | sgq | never: not in 3 epochs, best 76.0 % |" in markdown.render(made)

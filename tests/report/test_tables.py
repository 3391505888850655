"""Every table against numbers computed by hand, from the records of conftest.py."""

import json
from typing import Any

import pytest

from edgekit.report.build import build
from edgekit.report.content import Bars, Plot, Quantiles, Report, Spread, Table
from edgekit.report.records import Accuracy, Measure, Records, Scaling, ToAccuracy, Training, parse


def report(*contents: Any, only: tuple[str, ...] = ()) -> Report:
    """Objects are measure records, lists with events are runs, other lists accuracy rows."""
    parsed = []
    for i, content in enumerate(contents):
        run = isinstance(content, list) and "event" in content[0]
        text = "".join(json.dumps(event) + "\n" for event in content) if run else json.dumps(content)
        parsed.append(parse(text.encode(), f"record-{i}"))
    kinds = Measure, Training, Accuracy, Scaling, ToAccuracy
    return build(Records(*([each for each in parsed if isinstance(each, kind)] for kind in kinds)), only)  # type: ignore[arg-type]


def table(made: Report, title: str) -> Table:
    (found,) = [each for section in made.sections for each in section.tables if each.title.startswith(title)]
    return found


def column(made: Report, title: str, name: str) -> list[Any]:
    found = table(made, title)
    (place,) = [i for i, each in enumerate(found.columns) if each.name == name]
    return [row[place] for row in found.rows]


def rows(made: Report, title: str) -> dict[Any, Any]:
    return {row[0]: row[1:] for row in table(made, title).rows}


def test_headline(measure: dict[str, Any]) -> None:
    """At 1 Mbit/s an image of sgq takes 8.9 ms and 766.6 B, 6.1328 ms on the link; one of uq 8.4 ms and 5506.4 B."""
    made = report(measure)
    # Per codec the link drifts by a hundredth a repeat and place: sgq is the fifth, uq the second.
    ratios = [(0.0084 + 0.0440512 * (1 + 0.01 * i)) / (0.0089 + 0.0061328 * (1 + 0.04 * i)) for i in range(3)]
    link, codec, rate, against_uq, against_fp32, paper = table(made, "SGQ's speedup").rows[0]
    assert (link, codec, paper) == ("1mbit", "sgq", 9.22)
    assert against_uq == pytest.approx((sorted(ratios)[1], min(ratios), max(ratios)))
    assert rate == pytest.approx((1 / (0.0089 + 0.0061328 * 1.04), 1 / ((0.0089 + 0.0061328 * 1.08) * 1.02),
                                  1 / ((0.0089 + 0.0061328) * 0.99)))  # fmt: skip
    assert isinstance(against_fp32, Spread) and against_fp32.median > 30
    assert "what the paper states, not a measurement" in table(made, "SGQ's speedup").note
    (headline,) = made.headlines
    assert [tile.label for tile in headline.tiles] == [*measure["links"], "the paper's figure"]
    assert headline.tiles[0].value == f"{sorted(ratios)[1]:.2f}x"
    assert headline.tiles[-1].value == "9.22x" and headline.tiles[-1].quoted
    assert "not measured here" in headline.tiles[-1].detail


def test_without_the_paper_nothing_is_said_of_it(measure: dict[str, Any]) -> None:
    del measure["paper"]
    made = report(measure)
    assert "paper" not in json.dumps(made.to_json()["headlines"])
    assert len(table(made, "SGQ's speedup").columns) == 5


def test_rates_and_speedups(measure: dict[str, Any]) -> None:
    made = report(measure)
    rates = rows(made, "Images/s trained")
    assert list(rates) == list(measure["links"])
    # fp32 without a link: 7.9 ms, in the slowest repeat 2 % more, in the fastest 1 % less.
    assert rates["loopback"][0] == pytest.approx((1 / 0.0079, 1 / 0.0079 / 1.02, 1 / 0.0079 / 0.99))
    against = table(made, "Speedup against uq")
    assert [each.name for each in against.columns] == ["link", "fp32", "pq", "clio", "sgq"]
    assert rows(made, "Speedup against uq")["loopback"][0] == pytest.approx((84 / 79,) * 3)


def test_the_depth_with_most_results_is_shown(measure: dict[str, Any]) -> None:
    assert len(measure["results"]) == 29
    assert all(isinstance(cell, Spread) for row in table(report(measure), "Images/s trained").rows for cell in row[1:])


def test_limits_and_encoding(measure: dict[str, Any]) -> None:
    made = report(measure)
    (line,) = [row for row in table(made, "Limits").rows if row[0] == "uq"]
    # 5506.4 B in 8.4 ms is 5.244 Mbit/s.
    assert line == ["uq", "1", pytest.approx(1 / 0.0084), pytest.approx(5.24419, rel=1e-5)]
    assert rows(made, "Encoding alone")["uq"] == [pytest.approx((450, 445.5, 459)), *map(pytest.approx, (71, 74, 82))]


def test_curve_has_roofs_and_knees(measure: dict[str, Any]) -> None:
    made = report(measure, only=("speed",))
    chart = made.sections[0].charts[0]
    assert isinstance(chart, Plot) and chart.log_x and chart.log_y
    (line,) = [each for each in chart.series if (each.name, each.style) == ("uq", "line")]
    assert line.x == [1.0, 10.0, 100.0]
    (knee,) = [each for each in chart.series if (each.name, each.style) == ("uq", "knee")]
    assert knee.x == pytest.approx([5.24419], rel=1e-5) and knee.y == pytest.approx([1 / 0.0084])
    (roof,) = [each for each in chart.series if (each.name, each.style) == ("uq", "limit")]
    assert roof.y == pytest.approx([1 / 0.0084 / 5.24419, 1 / 0.0084, 1 / 0.0084], rel=1e-5)
    (delayed,) = [each for each in chart.series if (each.name, each.style) == ("uq", "open")]
    assert delayed.x == [10.0]
    # Nothing measured is faster than its limit by more than the spread of the repeats.
    assert max(line.y) < max(roof.y)


def test_bytes_measured_and_by_formula_stay_apart(measure: dict[str, Any]) -> None:
    made = report(measure)
    head = [each.name for each in table(made, "Bytes per image").columns]
    assert head == ["codec", "up", "up feature", "up codebook", "down", "up by formula"]
    assert rows(made, "Bytes per image")["sgq"] == [*map(pytest.approx, (159.7, 155.6, 4.1, 606.9)), 256.0]
    assert "in the sums alone" in table(made, "Bytes per image").note
    (section,) = [each for each in made.sections if each.name == "bytes"]
    assert "256" not in json.dumps(made.to_json()["sections"][1]["charts"][0]["series"])
    assert section.charts[0].x_label == "bytes per image, measured"


def test_bytes_of_runs_leave_evaluation_out(run: list[dict[str, Any]]) -> None:
    made = report(run)
    assert rows(made, "Bytes per image, training runs")["sgq groups 8 bits 4"] == [280, 270, 10, 600, 256]


def test_time_split(measure: dict[str, Any], run: list[dict[str, Any]]) -> None:
    made = report(measure, run)
    split = rows(made, "Time split: mobilenet_v1, cifar10")
    # The second repeat: 44.0512 ms on the link, drifted by 1 %; 8.4 ms as 45, 5 and 50 %.
    assert split["1mbit, uq"] == [*map(pytest.approx, (3.78, 0.42, 44.491712, 4.2, 52.891712))]
    # 19.2 s of a device for its 1920 images.
    of_run = rows(made, "Time split: training runs")["sgq groups 8 bits 4"]
    assert of_run == [*map(pytest.approx, (10, 0.5, 2, 7.5, 20))]
    (section,) = [each for each in made.sections if each.name == "time"]
    bars = section.charts[0]
    assert isinstance(bars, Bars) and bars.categories[1] == "1mbit, uq" and list(bars.starts) == [5, 10, 15, 20]
    shares = [values[1] for _, _, values in bars.parts]
    assert shares == pytest.approx([7.1467, 0.7941, 84.1185, 7.9407], rel=1e-4)
    assert bars.totals[1] == "52.9 ms/image"


def test_latency_and_cost(measure: dict[str, Any]) -> None:
    made = report(measure)
    latency = rows(made, "Latency")["loopback"][0]
    assert isinstance(latency, Quantiles) and latency == pytest.approx((250.272, 267.968, 303.36))
    assert table(made, "Cost").rows[0][2:] == [1, pytest.approx(3.95), pytest.approx(3.95), None, 150, 420, None]
    assert table(made, "Cost").note == "Energy could not be read on this machine."


def test_batches_in_flight(measure: dict[str, Any]) -> None:
    found = table(report(measure), "Batches in flight").rows
    assert [row[:3] for row in found] == [["10mbit+50ms", codec, n] for codec in ("uq", "sgq") for n in (1, 2, 4)]
    rates = [row[3] for row in found]
    assert [row[4] for row in found[:3]] == [1.0, *(each.median / rates[0].median for each in rates[1:3])]  # type: ignore[union-attr]
    assert [row[5] for row in found] == [0.0, 1.0, 3.0] * 2
    against = [row[7].median for row in found if isinstance(row[7], Spread)]
    assert len(against) == 3 and all(1.2 < each < 1.4 for each in against)


def test_accuracy_by_depth_compares_runs_that_are_alike(run: list[dict[str, Any]]) -> None:
    def changed(**values: Any) -> list[dict[str, Any]]:
        return [{**event, **values} if event["event"] in ("start", "summary") else event for event in run]

    other = changed(in_flight=2, accuracy=76.5, staleness=1.0)
    made = report(run, other, changed(in_flight=4, lr=0.1))
    assert table(made, "Accuracy by").rows == [
        ["mobilenet_v1, digits", "sgq groups 8 bits 4, 1 in flight, lr 0.05", 1, 77.0, 100.0, 0.0],
        ["mobilenet_v1, digits", "sgq groups 8 bits 4, 2 in flight, lr 0.05", 2, 76.5, 100.0, 1.0],
    ]


def test_accuracy_rows() -> None:
    row = {
        "model": "m", "dataset": "d", "limit": 100, "method": "SGQ-4+none", "codec": "sgq", "n_epochs": 8,
        "accuracy": 44.0, "accuracies": [43.5, 44.0, 45.5], "bytes_up": 260.0, "bytes_down": 607.5,
        "formula_bytes_up": 256.0,
    }  # fmt: skip
    made = report([row])
    assert table(made, "Accuracy against bytes: m, d, 100 images").rows == [
        ["SGQ-4", 8, Spread(44.0, 43.5, 45.5), 260.0, 607.5, 867.5, 256.0]
    ]


def test_convergence_and_codebooks(run: list[dict[str, Any]]) -> None:
    made = report(run)
    # Three epochs of 640 images at 50 images/s; two devices, 880 B an image.
    (end,) = _ends(made, "convergence")
    assert end[:3] == ["mobilenet_v1, digits", "sgq groups 8 bits 4", 3]
    assert end[3:] == pytest.approx([90 - 40 / 3 - 0.5, 38.4, 3.3792])
    (health,) = _ends(made, "codebooks")
    assert health[2:] == [3, 13.5, pytest.approx(1 / 6), 0.0]
    (section,) = [each for each in made.sections if each.name == "codebooks"]
    perplexity, distortion = section.charts
    assert isinstance(perplexity, Plot) and perplexity.series[0].y == [12.5, 13.0, 13.5]
    assert isinstance(distortion, Plot) and distortion.series[0].y == pytest.approx([0.5, 0.25, 1 / 6])


def test_epochs_without_a_test_are_left_out(run: list[dict[str, Any]]) -> None:
    """As with `edgekit train --evaluate-every 3`: their time and bytes still count."""
    for event in run:
        if event["event"] == "epoch" and event["epoch"] < 3:
            del event["accuracy"]
    made = report(run)
    (chart, _) = next(each for each in made.sections if each.name == "convergence").charts
    assert isinstance(chart, Plot) and chart.series[0].x == pytest.approx([38.4])
    assert _ends(made, "convergence")[0][2:] == [3, *map(pytest.approx, (90 - 40 / 3 - 0.5, 38.4, 3.3792))]


def _ends(made: Report, name: str) -> list[Any]:
    (section,) = [each for each in made.sections if each.name == name]
    return list(section.tables[0].rows)


def test_a_run_that_broke_off_is_drawn_and_warned_of(run: list[dict[str, Any]]) -> None:
    # The last epoch was ended by one device alone.
    made = report(run[:-2])
    assert made.warnings == ["record-0 has no summary: the run did not come to its end"]
    assert _ends(made, "convergence")[0][2] == 2


def test_machine_warnings_and_commands(measure: dict[str, Any], run: list[dict[str, Any]]) -> None:
    made = report(measure, run)
    assert made.warnings == ["mobilenet_v1, cifar10, cpu: the clocks of this machine cannot be locked: rates may drift"]
    machine = rows(made, "Machine")
    assert machine["memory"] == ["8.0 GiB", "8.0 GiB"] and machine["torch"] == [None, "2.13.0+cpu"]
    assert machine["clocks"] == ["not known, 2795 to 2800 MHz"] * 2
    assert rows(made, "Setting")["cores"] == ["device 0, server 1"]
    assert made.sections[-1].commands == [
        ("mobilenet_v1, cifar10, cpu, 2026-11-21T06:00:00Z", "edgekit measure mobilenet_v1 --codecs "
         "fp32,uq,pq,clio,sgq --links 1mbit,10mbit,100mbit,10mbit+50ms,loopback"),
        ("mobilenet_v1, digits: sgq groups 8 bits 4, 2026-11-21T06:16:59Z",
         "edgekit train mobilenet_v1 --codec sgq --out DIR"),
    ]  # fmt: skip


def test_several_machines_are_warned_of(measure: dict[str, Any]) -> None:
    other = json.loads(json.dumps(measure))
    other["machine"]["server"]["processor"] = "another"
    assert report(measure, other).warnings[-1].startswith("the measure records are of several machines")


def test_equal_settings_get_numbers(measure: dict[str, Any]) -> None:
    made = report(measure, measure, only=("speed",))
    titles = [each.title for each in made.sections[0].tables if each.title.startswith("Limits")]
    assert titles == ["Limits: mobilenet_v1, cifar10, cpu", "Limits: mobilenet_v1, cifar10, cpu (2)"]


def test_what_is_missing_names_its_command(measure: dict[str, Any], run: list[dict[str, Any]]) -> None:
    missing = dict(report(run).missing)
    of_measures = ["Speed", "Batches in flight", "Scaling", "Time to an accuracy"]
    assert list(missing) == [*of_measures, "Losses", "Devices and classes", "Federated learning"]
    assert missing["Speed"].startswith("edgekit measure MODEL")
    missing = dict(report(measure).missing)
    assert missing.pop("Time to an accuracy") == "edgekit measure MODEL --to-accuracy 90 --out to-accuracy.json"
    scale = missing.pop("Scaling")
    assert scale.startswith("edgekit measure MODEL") and "--devices" in scale
    assert missing.pop("Federated learning").startswith("edgekit federate MODEL")
    of_runs = ["Accuracy against bytes", "Convergence", "Losses", "Devices and classes", "Codebook health"]
    assert list(missing) == of_runs
    assert all(command.startswith("edgekit train MODEL") for command in missing.values())
    assert report(measure, only=("speed",)).missing == []


def test_the_servers_test_is_the_accuracy_of_an_epoch(fleet_run: list[dict[str, Any]]) -> None:
    """The devices' own accuracies, 0 to 20 %, are of a third of the images each: nobody's mean is shown."""
    made = report(fleet_run)
    (end,) = _ends(made, "convergence")
    # Two devices at the end: 300 and 600 images at 50/s; bytes of the third are still counted.
    assert end[2:] == [3, 53.0, 9.0, pytest.approx((2 * 9000 + 3000) / 1e6)]
    over_time, _ = next(each for each in made.sections if each.name == "convergence").charts
    assert isinstance(over_time, Plot)
    assert over_time.series[0].x == pytest.approx([4.0, 6.0, 9.0]) and over_time.series[0].y == [51.0, 52.0, 53.0]


def test_tests_at_different_times_are_one_by_images(fleet_run: list[dict[str, Any]]) -> None:
    """Devices that are not in step test when they are done: an event each."""
    later = dict(fleet_run[1], images=300, accuracy=61.0)
    made = report([*fleet_run, later])
    over_time, _ = next(each for each in made.sections if each.name == "convergence").charts
    assert isinstance(over_time, Plot) and over_time.series[0].y[0] == pytest.approx((51 * 100 + 61 * 300) / 400)


def test_losses(fleet_run: list[dict[str, Any]]) -> None:
    made = report(fleet_run)
    (end,) = _ends(made, "loss")
    # Training losses 1 and 2, by the 100 and 200 images of the epoch; the others are the server's.
    assert end[2:] == pytest.approx([3, 5 / 3, 0.5, 2 / 3])
    (section,) = [each for each in made.sections if each.name == "loss"]
    train, validation, test = section.charts
    assert isinstance(train, Plot) and train.series[0].y == pytest.approx([(1 + 4 + 9) / 6, 5 / 3, 5 / 3])
    assert isinstance(validation, Plot) and validation.series[0].y == pytest.approx([1.5, 0.75, 0.5])
    assert isinstance(test, Plot) and test.series[0].y == pytest.approx([2.0, 1.0, 2 / 3])


def test_a_loss_that_is_no_number_is_left_out(fleet_run: list[dict[str, Any]]) -> None:
    for event in fleet_run:
        if event["event"] == "epoch" and event["epoch"] == 2:
            event["loss"] = None if event["device"] == "device-0" else float("nan")
        event.pop("validation_loss", None)
    made = report(fleet_run)
    train, test = next(each for each in made.sections if each.name == "loss").charts
    assert isinstance(train, Plot) and train.series[0].x == [1, 3]
    assert test.title.startswith("Test loss")


def test_old_runs_have_the_mean_over_devices(run: list[dict[str, Any]]) -> None:
    for event in run:
        if event["event"] == "epoch":
            event.update(loss=1.0, test_loss=float(event["device"][-1]))
    made = report(run)
    assert _ends(made, "loss")[0][2:] == [3, 1.0, None, 0.5]
    assert _ends(made, "convergence")[0][3] == pytest.approx(90 - 40 / 3 - 0.5)
    assert not [each for each in made.sections if each.name == "devices"]


def test_devices_and_classes(fleet_run: list[dict[str, Any]]) -> None:
    made = report(fleet_run)
    assert table(made, "Accuracy by device: vgg11, digits: sgq").rows == [
        ["device-0", 50.0, 49.0, 70.0, 300], ["device-1", 56.0, 56.0, 71.0, 600]
    ]  # fmt: skip
    assert table(made, "Accuracy by class").rows == [["nought", 20, 80.0], ["one", 40, 25.0], ["<two>", 0, None]]
    assert rows(made, "Fleets")["vgg11, digits: sgq"] == [3, 53.0, 52.5, 60.0, 30, 2, 3, 1, "no"]
    assert table(made, "Devices in quarantine").rows == [
        ["vgg11, digits: sgq", "device-2", "12 messages that do not parse"]
    ]
    (bars,) = next(each for each in made.sections if each.name == "devices").charts
    assert isinstance(bars, Bars) and bars.categories == ["one", "nought"]
    assert [values for _, _, values in bars.parts] == [[25.0, 80.0], [75.0, 20.0]]
    assert bars.totals == ["25.0 % of 40", "80.0 % of 20"]


def test_quarantine_shows_in_a_run_that_broke_off(fleet_run: list[dict[str, Any]]) -> None:
    made = report(fleet_run[:-1])
    assert [row[1] for row in table(made, "Devices in quarantine").rows] == ["device-2"]
    assert _ends(made, "convergence")[0][2] == 3


def test_rounds_have_their_part_of_the_time(fleet_run: list[dict[str, Any]]) -> None:
    split = table(report(fleet_run), "Time split: training runs")
    assert split.columns[5].name == "waits for rounds"
    # 3 devices were planned: 300 images each.
    assert split.rows[0][1:] == pytest.approx([1e3 * s / 300 for s in (1.0, 0.5, 0.25, 1.0, 0.25, 3.0)])


def test_scaling(scaling: dict[str, Any]) -> None:
    made = report(scaling)
    found = table(made, "Scaling: vgg11, digits, cpu, 0.125 of a core each")
    assert [row[:4] for row in found.rows[:4]] == [["loopback", "async", "sgq", n] for n in (1, 2, 4, 8)]
    last = found.rows[-1]
    assert last[4] == pytest.approx((300.0, 270.0, 330.0)) and last[7] == pytest.approx(37.5)
    assert last[8:10] == [188.0, 288.0] and last[11:] == pytest.approx([99.0, 3.3, 10.0, "server"])
    assert found.note == "8,622 images, 6 epochs, 4 cores, each device at most 0.125 of a core."
    (section,) = [each for each in made.sections if each.name == "scaling"]
    speed, load, n_bytes, accuracy = section.charts
    assert isinstance(speed, Plot)
    (sync,) = [each for each in speed.series if (each.name, each.style) == ("sgq, sync", "line")]
    (ideal,) = [each for each in speed.series if (each.name, each.style) == ("sgq, sync", "limit")]
    assert sync.x == ideal.x == [1, 2, 4, 8]
    assert sync.y == [100.0, 200.0, 300.0, 300.0] and ideal.y == [100.0, 200.0, 400.0, 800.0]
    assert isinstance(load, Plot) and load.series[1].y == pytest.approx([33.0, 66.0, 99.0, 99.0])
    assert isinstance(n_bytes, Plot) and n_bytes.series[0].y == [462.0, 464.0, 468.0, 476.0]
    assert isinstance(accuracy, Plot) and accuracy.series[0].y == [79.0, 78.0, 76.0, 72.0]
    split = rows(made, "Time of a device")["loopback, sync, sgq, 8"]
    assert split == pytest.approx([8.0, 1.0, 0.0, 0.5, 0.5, 10.0])
    assert made.warnings == [
        "vgg11, digits, cpu, 0.125 of a core each: 8 device processes and the server share 4 cores"
    ]
    assert made.title == "edgekit: vgg11" and rows(made, "Setting: scaling")["device share"] == ["0.125"]
    assert made.sections[-1].commands[0][1] == "edgekit measure vgg11 --devices 1,2,4,8 --device-share 0.125"

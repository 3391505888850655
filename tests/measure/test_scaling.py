"""How a fleet scales: images and epochs, what binds, medians, and warnings, against figures worked out by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UnknownName, UsageError
from edgekit.export.settings import BoardSettings, NamedData, NamedNetwork
from edgekit.launch.settings import Run, Server
from edgekit.link.link import parse_link
from edgekit.measure import scaling
from edgekit.measure.methods import parse_list
from edgekit.measure.scaling import Plan, passes
from edgekit.measure.scaling_record import binds, crowded, record, summarise, warnings
from edgekit.server.modes import FleetSettings

SETTING = {"devices": [1, 2, 4], "device_share": None, "cores": 8, "threads": {"device": 1, "server": 1}}


def plan(**changed: Any) -> Plan:
    found = Plan(
        NamedNetwork("vgg11"), NamedData(), BoardSettings(), (1, 2), tuple(parse_list("uq,sgq")),
        {"loopback": None, "1mbit": parse_link("1mbit")}, ("sync", "async"), 2, 3, 32, 1, Server(), None, 0,
    )  # fmt: skip
    return found._replace(**changed)


def cell(devices: int, rate: float, repeat: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "codec": "sgq", "link": "loopback", "mode": "sync", "devices": devices, "repeat": repeat, "images_per_s": rate,
        "device_rates": rate, "accuracy": 80.0, "balanced_accuracy": 79.0, "others_cpu": 0.0,
        "bytes_per_image": {"up": {"feature": 90.0, "update": 10.0}, "down": {"gradient": 400.0}},
        "seconds_per_image": {"network": 0.1}, "cpu_seconds_per_image": {"server": 0.01}, "quarantined": {},
        "busy": {"server": 0.2, "device": 0.5, "link": 0.0, "measuring": 0.0}, "collapsed": None, **changed,
    }  # fmt: skip


@given(st.integers(2, 10**6), st.integers(2, 10**6))
def test_as_many_images_as_whole_epochs_allow(wanted: int, there: int) -> None:
    epochs, images = passes(wanted, there)
    assert epochs >= 1 and 2 <= images <= there
    # Half an epoch off at most; and a part of the images is one epoch of so many.
    assert abs(epochs * images - wanted) <= images / 2 and (epochs == 1 or images == there)


def test_fewer_than_two_images_are_none_to_train_on() -> None:
    with pytest.raises(UsageError, match="expected at least 2"):
        passes(1, 100)


def test_methods_take_turns_within_all_else() -> None:
    order = [(repeat, link, mode, devices, method.name) for repeat, link, mode, devices, method in plan().cells()]
    assert len(order) == 2 * 2 * 2 * 2 * 2 and len(set(order)) == len(order)
    assert [each[4] for each in order[:4]] == ["uq", "sgq"] * 2
    assert [each[3] for each in order[:4]] == [1, 1, 2, 2] and order[16][0] == 1


def test_settings_of_a_training() -> None:
    uq, sgq = plan().methods
    made = plan(server=Server(fleet=FleetSettings(sync_every="4"))).training(4, uq, "1mbit", "async", 2)
    training, server = made.training, made.server
    assert (training.devices, training.link, training.epochs, training.evaluate_every) == (4, "1mbit", 3, 3)
    assert (server.fleet.mode, server.fleet.sync_every, server.gradient_codec) == ("async", "4", "stochastic:bits=4")
    assert plan().training(1, sgq, "loopback", "sync", 0).training.link is None
    assert made.seed == 2 and made.coding.codec.codec_id == "uniform"


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"devices": (0,)}, UsageError, "--devices 0"),
        ({"batch": 1}, UsageError, "batch of 1"),
        ({"modes": ("synk",)}, UnknownName, "did you mean sync"),
        ({"server": Server(fleet=FleetSettings(sync_every="often"))}, UsageError, "often"),
        ({"server": Server(lr=-1.0)}, UsageError, "lr"),
        ({"share": 2.0}, UsageError, r"expected 0\.01 to 1"),
    ],
)
def test_a_plan_is_checked_before_anything_is_exported(
    changed: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        plan(**changed).check()


def test_a_plan_that_is_none_the_worse() -> None:
    plan(share=0.125).check()


def test_results_are_medians_of_ratios_within_repeats() -> None:
    rates = {2: [20.0, 30.0, 40.0], 8: [60.0, 120.0, 100.0]}
    cells = [cell(devices, rates[devices][i], i) for i in range(3) for devices in rates]
    two, eight = summarise(cells, SETTING)
    assert two["speedup"] == {"over_devices": 2, "median": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert eight["speedup"] == {"over_devices": 2, "median": 3.0, "low": 2.5, "high": 4.0, "n": 3}
    # Four times as many devices, three times as fast.
    assert (two["efficiency"], eight["efficiency"]) == (1.0, 0.75)
    assert eight["images_per_s"] == {"median": 100.0, "low": 60.0, "high": 120.0, "n": 3}
    assert (eight["bytes_up_per_image"], eight["bytes_down_per_image"]) == (100.0, 400.0)
    assert eight["accuracy"]["median"] == 80.0


def test_a_repeat_that_broke_off_has_no_ratio() -> None:
    first, second, alone = summarise([cell(1, 10.0), cell(2, 15.0), cell(1, 10.0, link="1mbit")], SETTING)
    assert first["speedup"]["n"] == second["speedup"]["n"] == alone["speedup"]["n"] == 1
    (lost,) = [each for each in summarise([cell(1, 10.0), cell(2, 15.0, 1)], SETTING) if each["devices"] == 2]
    assert lost["speedup"] is None and lost["efficiency"] is None


@pytest.mark.parametrize(
    ("busy", "others", "setting", "what"),
    [
        ({"server": 0.95, "device": 0.4}, 0.0, {}, "server"),
        ({"server": 0.95, "device": 0.4}, 0.0, {"threads": {"server": 2}}, "none"),
        ({"server": 0.3, "device": 0.92}, 0.0, {}, "devices"),
        ({"server": 0.3, "device": 0.12}, 0.0, {"device_share": 0.125}, "devices"),
        ({"server": 0.3, "device": 0.12}, 0.0, {}, "none"),
        # 0.3 and four devices of 0.4 are 1.9 cores.
        ({"server": 0.3, "device": 0.4}, 0.0, {"cores": 2}, "processors"),
        ({"server": 0.3, "device": 0.4}, 0.7, {}, "processors"),
    ],
)
def test_what_binds(busy: dict[str, float], others: float, setting: dict[str, Any], what: str) -> None:
    assert binds({"link": 0.0, **busy}, 4, others, {**SETTING, **setting}) == what


def test_a_crowded_machine_is_told_of() -> None:
    assert crowded({**SETTING, "cores": 4}) == [4] and crowded({**SETTING, "cores": 5}) == []
    assert crowded({**SETTING, "cores": 2, "device_share": 0.25}) == []
    assert crowded({**SETTING, "cores": 2, "device_share": 0.5}) == [4]
    (told,) = warnings([], [], {**SETTING, "cores": 2})
    assert told.startswith("2, 4 device processes at a core each, and the server, share 2 cores")
    (told,) = warnings([], [], {**SETTING, "cores": 2, "device_share": 0.5})
    assert told.startswith("4 device processes at 0.5 of a core each")


def test_warnings() -> None:
    lost = {"device-1": "12 messages that do not parse"}
    cells = [cell(1, 10.0, 0, others_cpu=0.3, quarantined=lost), cell(1, 20.0, 1, others_cpu=0.3, collapsed="it did")]
    found = warnings(summarise(cells, SETTING), cells, SETTING)
    assert found[0].startswith("1 of 1 results spread") and found[1].startswith("other processes took 30%")
    assert found[2] == "1 of 2 trainings lost devices to quarantine, first device-1: 12 messages that do not parse"
    assert found[3].startswith("1 of 2 trainings are no better than guessing")
    quiet = [cell(1, 10.0, 0), cell(1, 10.1, 1)]
    assert warnings(summarise(quiet, SETTING), quiet, SETTING) == []


def test_what_failed_is_said_first() -> None:
    made = record(SETTING, {}, {"loopback": None}, [cell(1, 10.0)], {}, [], "", "stopped")
    assert made["warnings"][0] == "not complete: stopped" and made["format"] == "edgekit-scaling"
    assert made["links"] == {"loopback": None} and len(made["results"]) == 1


def test_one_export_for_all_cells_of_a_repeat_and_method(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[tuple[str, int]] = []
    trained: list[tuple[Any, Run]] = []

    def export(run: Run, path: str) -> Any:
        exported.append((run.coding.codec.codec_id, run.seed))
        return exported[-1]

    def cell(run: Run, bundle: Any, *_: Any) -> dict[str, Any]:
        trained.append((bundle, run))
        return {}

    monkeypatch.setattr(scaling, "export_run", export)
    monkeypatch.setattr(scaling, "cell", cell)
    scaling.run(plan(), lambda name: None, lambda event: None, lambda cell: None)
    assert exported == [("uniform", 0), ("sgq", 0), ("uniform", 1), ("sgq", 1)]
    assert len(trained) == len(list(plan().cells()))
    assert all(bundle == (run.coding.codec.codec_id, run.seed) for bundle, run in trained)

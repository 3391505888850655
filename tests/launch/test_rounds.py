"""The rounds of a training, as far as they decide what a round takes of an image."""

from typing import Any

import pytest

from edgekit.errors import UsageError
from edgekit.export.rate.choose import Goal
from edgekit.export.settings import BoardSettings, NamedData, NamedNetwork, as_coding
from edgekit.launch.rounds import counted, planned
from edgekit.launch.settings import Run, Server, Training
from edgekit.server.modes import FleetSettings


def run(training: Training, server: Server = Server(), **fleet: Any) -> Run:
    server = server._replace(fleet=FleetSettings(**fleet))
    return Run(NamedNetwork("vgg11"), NamedData(), as_coding("sgq"), BoardSettings(), training, server, 0)


FOUR = Training(devices=4, epochs=12, batch=32)


@pytest.mark.parametrize(
    ("training", "fleet", "rounds", "steps"),
    [
        (FOUR, {}, 12, 63),
        (FOUR, {"sync_every": "4epochs"}, 12, 63),  # before each test too
        (FOUR._replace(evaluate_every=12), {"sync_every": "4epochs"}, 3, 4 * 63),
        (FOUR._replace(evaluate_every=5), {"sync_every": "4epochs"}, 5, 12 * 63 // 5),
        # In sync mode the devices make 63 steps of 64 images in an epoch together.
        (FOUR, {"sync_every": "10"}, 12 * 6, 10),
        (FOUR, {"sync_every": "10", "mode": "async"}, 12 * 3, 32 * 12 // 36),
        (FOUR, {"sync_every": "1000"}, 12, 63),
        (FOUR, {"joint_batch": 128}, 12, 32),
    ],
)
def test_rounds_and_the_images_between_two(training: Training, fleet: dict[str, Any], rounds: int, steps: int) -> None:
    plan = planned(run(training, **fleet), 4000)
    assert plan.images == pytest.approx(1000 * 12 / rounds) and plan.receivers == 1.0
    assert plan.steps == pytest.approx(steps, abs=1)


def test_images_held_back_do_not_count() -> None:
    plan = planned(run(FOUR._replace(validation=0.2)), 4000)
    assert plan.images == 800


def test_devices_that_rest_get_new_weights_too() -> None:
    plan = planned(run(FOUR, sampling="static:0.25"), 4000)
    assert plan.receivers == 4.0
    ten = FOUR._replace(devices=10)
    dynamic = planned(run(ten, sampling="dynamic:1"), 4000)
    assert 1.5 < dynamic.receivers < 2.0


def test_codecs_optimizer_and_statistics() -> None:
    plan = planned(
        run(FOUR, Server("adam", momentum=0.5), update_codec="quantised:step=1", norm_statistics="local"), 4000
    )
    assert plan.up == plan.down and not plan.statistics
    assert (plan.optimizer, plan.momentum) == ("adam", 0.5) and 0.001 < plan.rate < 0.002
    plan = planned(run(FOUR, update_codec_down="fedavg"), 4000)
    assert plan.up.codec_id == "quantised" and plan.down.codec_id == "fedavg" and plan.statistics


def test_a_local_head_is_averaged_with_the_front_half() -> None:
    assert planned(run(FOUR), 4000).local_loss == 0
    assert planned(run(FOUR, Server(local_loss=0.5)), 4000).local_loss == 0.5


@pytest.mark.parametrize(("fleet", "devices"), [({}, 1), ({"sync_every": "0"}, 4), ({"sync_every": "30s"}, 4)])
def test_nothing_to_count(fleet: dict[str, Any], devices: int) -> None:
    given = run(FOUR._replace(devices=devices), **fleet)
    assert not counted(given)
    goal = Goal(max_accuracy_drop=1.0) if "sync_every" in fleet else Goal(target_bytes=300.0)
    assert not counted(given._replace(coding=given.coding._replace(goal=goal)))


def test_by_the_clock_nobody_knows() -> None:
    given = run(FOUR, sync_every="30s")
    told = r"--target-bytes counts rounds too, and by the clock \(--sync-every 30s\)"
    with pytest.raises(UsageError, match=told):
        counted(given._replace(coding=given.coding._replace(goal=Goal(target_bytes=300.0))))
    given = run(FOUR)
    assert counted(given._replace(coding=given.coding._replace(goal=Goal(target_bytes=300.0))))

"""The arithmetic of the last line of a record."""

import pytest

from edgekit.launch.summary import collapsed, summary

DONE = [
    {
        "event": "done", "device": "device-0", "accuracy": 90.0, "balanced_accuracy": 85.0, "train_accuracy": 99.0,
        "test_loss": 0.5, "by_class": {"images": [10, 10, 0], "correct": [10, 8, 0]},
        "loss": 0.5, "images": 100, "train_s": 10.0,
        "gradient_deviation": 0.25, "staleness": 0.0, "bytes_up": 26_000, "bytes_down": 52_000,
        "bytes": {"up.feature": 25_000, "up.hello": 1_000, "down.gradient": 52_000},
        "seconds": {"compute": 4.0, "encode": 1.0, "network": 2.0, "server": 3.0, "evaluate": 5.0},
    },
    {
        "event": "done", "device": "device-1", "accuracy": 95.0, "balanced_accuracy": 95.0, "train_accuracy": 98.0,
        "test_loss": 0.25, "by_class": {"images": [60, 0, 0], "correct": [57, 0, 0]},
        "loss": 0.25, "images": 300, "train_s": 20.0,
        "gradient_deviation": 0.75, "staleness": 1.0, "bytes_up": 74_000, "bytes_down": 148_000,
        "bytes": {"up.feature": 74_000, "up.codebook": 7, "down.gradient": 148_000},
        "seconds": {"compute": 8.0, "encode": 2.0, "network": 4.0, "server": 5.0}, "codebook": {"version": 3},
    },
]  # fmt: skip
SERVER = {"event": "ended", "process": "server", "steps": 12, "rounds": 2, "repeatable": True}
RUN = {"model": "vgg11", "codec": "sgq", "event": "start"}


def test_two_devices():
    last = summary(RUN, DONE, {}, SERVER)
    assert last["event"] == "summary" and last["model"] == "vgg11" and last["codec"] == "sgq"
    assert last["accuracy"] == 100 * 75 / 80  # of all images that were tested, whoever had them
    assert last["balanced_accuracy"] == pytest.approx((100 * 67 / 70 + 80) / 2)  # of the classes that there are
    assert last["accuracy_by_class"] == [pytest.approx(100 * 67 / 70), 80.0, None]
    assert last["images_tested_by_class"] == [70, 10, 0]
    assert last["accuracy_by_device"] == {"device-0": 90.0, "device-1": 95.0}
    assert last["balanced_accuracy_by_device"] == {"device-0": 85.0, "device-1": 95.0}
    assert last["test_loss"] == (0.5 * 20 + 0.25 * 60) / 80
    assert "validation_accuracy" not in last and last["quarantined"] == {}
    assert last["fleet"] == {"steps": 12, "rounds": 2, "repeatable": True}
    assert last["codebook_by_device"] == {"device-1": {"version": 3}}  # of the devices that have one
    assert last["loss"] == 0.375
    assert last["images"] == 400
    assert last["gradient_deviation"] == 0.5 and last["staleness"] == 0.5
    assert last["bytes_up_per_image"] == 250.0
    assert last["bytes_down_per_image"] == 500.0
    assert last["bytes_by_kind"] == {
        "up.feature": 99_000,
        "up.hello": 1_000,
        "up.codebook": 7,
        "down.gradient": 200_000,
    }
    assert last["images_per_s"] == 100 / 10 + 300 / 20
    assert last["seconds"] == {
        "device_compute": 6.0, "encode": 1.5, "network": 3.0, "server": 4.0, "round": 0.0, "evaluate": 2.5,
        "train": 15.0,
    }  # fmt: skip


def test_the_error_of_gradients_is_told_where_a_bound_was_kept() -> None:
    assert "gradient_error" not in summary(RUN, DONE, {}, SERVER)
    kept = [dict(DONE[0], gradient_error=0.2, largest_error=0.3), dict(DONE[1], gradient_error=0.4, largest_error=0.5)]
    last = summary(RUN, [*kept, dict(DONE[0], device="late", images=0)], {}, SERVER)
    assert last["gradient_error"] == pytest.approx(0.3) and last["largest_error"] == 0.5


def test_one_that_came_when_the_run_was_over_has_no_part_in_the_means():
    late = dict(
        DONE[0], device="late", loss=0.0, images=0, train_s=0.0, gradient_deviation=0.0, bytes_up=0, bytes_down=0
    )
    with_it, without = summary(RUN, [*DONE, late], {}, SERVER), summary(RUN, DONE, {}, SERVER)
    for name in ("loss", "gradient_deviation", "staleness", "images_per_s", "images"):
        assert with_it[name] == without[name]
    assert with_it["images_by_device"]["late"] == 0


def test_what_goes_in_is_left_alone():
    before = repr((RUN, DONE))
    summary(RUN, DONE, {}, SERVER)
    assert repr((RUN, DONE)) == before


def test_one_device_is_its_own_mean():
    last = summary(RUN, DONE[:1], {"device-1": "dark"}, SERVER)
    assert last["quarantined"] == {"device-1": "dark"}
    assert last["accuracy"] == 90.0 and last["images_per_s"] == 10.0
    assert last["seconds"]["device_compute"] == 4.0 and last["bytes_by_kind"] == DONE[0]["bytes"]


@pytest.mark.parametrize(
    "field", ["accuracy", "bytes_up_per_image", "bytes_down_per_image", "images_per_s", "codec", "model", "seconds"]
)
def test_what_others_read_is_there(field):
    assert field in summary(RUN, DONE, {}, SERVER)


@pytest.mark.parametrize(
    ("balanced", "loss", "test_loss", "steps", "ruined"),
    [
        (33.3, 1.2, 1.0, 500, True), (33.3, 0.9, 1.3, 500, False), (33.3, 0.9, 1.0, 500, False),
        (60.0, 1.2, 1.3, 500, False), (33.3, 1.2, 1.3, 20, False), (33.3, 2.5, 1.3, 20, True),
    ],
)  # fmt: skip
def test_a_network_no_better_than_guessing_has_collapsed(balanced, loss, test_loss, steps, ruined):
    last = {"balanced_accuracy": balanced, "loss": loss, "test_loss": test_loss, "fleet": {"steps": steps}}
    told = collapsed(last, 3)
    assert (told is not None) == ruined
    assert told is None or "guessing among 3" in told

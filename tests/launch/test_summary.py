"""The arithmetic of the last line of a record."""

import pytest

from edgekit.launch.summary import summary

DONE = [
    {
        "event": "done", "device": "device-0", "accuracy": 90.0, "loss": 0.5, "images": 100, "train_s": 10.0,
        "gradient_deviation": 0.25, "staleness": 0.0, "bytes_up": 26_000, "bytes_down": 52_000,
        "bytes": {"up.feature": 25_000, "up.hello": 1_000, "down.gradient": 52_000},
        "seconds": {"compute": 4.0, "encode": 1.0, "network": 2.0, "server": 3.0, "evaluate": 5.0},
    },
    {
        "event": "done", "device": "device-1", "accuracy": 96.0, "loss": 0.25, "images": 300, "train_s": 20.0,
        "gradient_deviation": 0.75, "staleness": 1.0, "bytes_up": 74_000, "bytes_down": 148_000,
        "bytes": {"up.feature": 74_000, "up.codebook": 7, "down.gradient": 148_000},
        "seconds": {"compute": 8.0, "encode": 2.0, "network": 4.0, "server": 5.0}, "codebook": {"version": 3},
    },
]  # fmt: skip
RUN = {"model": "vgg11", "codec": "sgq", "event": "start"}


def test_two_devices():
    last = summary(RUN, DONE)
    assert last["event"] == "summary" and last["model"] == "vgg11" and last["codec"] == "sgq"
    assert last["accuracy"] == 93.0  # per device, not per image
    assert last["accuracy_by_device"] == {"device-0": 90.0, "device-1": 96.0}
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
        "device_compute": 6.0, "encode": 1.5, "network": 3.0, "server": 4.0, "evaluate": 2.5, "train": 15.0,
    }  # fmt: skip


def test_what_goes_in_is_left_alone():
    before = repr((RUN, DONE))
    summary(RUN, DONE)
    assert repr((RUN, DONE)) == before


def test_one_device_is_its_own_mean():
    last = summary(RUN, DONE[:1])
    assert last["accuracy"] == 90.0 and last["images_per_s"] == 10.0
    assert last["seconds"]["device_compute"] == 4.0 and last["bytes_by_kind"] == DONE[0]["bytes"]


@pytest.mark.parametrize(
    "field", ["accuracy", "bytes_up_per_image", "bytes_down_per_image", "images_per_s", "codec", "model", "seconds"]
)
def test_what_others_read_is_there(field):
    assert field in summary(RUN, DONE)

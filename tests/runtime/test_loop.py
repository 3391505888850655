"""The device's loop against the real service, in one process, through real frames."""

import json
from typing import Any

import numpy as np
import pytest

from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.line.frame import Message
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from tests.runtime.loopback import service, train


def test_learns_with_every_codec(any_bundle: Bundle, digits: Dataset) -> None:
    before = any_bundle.arrays("front.safetensors")
    policy = "none" if any_bundle.codec.codec_id == "raw" else "stochastic-masked"
    device, events = train(any_bundle, digits, service(any_bundle, policy).handle, epochs=4)
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["accuracy"] > 60 and epochs[-1]["loss"] < epochs[0]["loss"] * 0.7
    for name, value in device.front.state.items():
        if not name.endswith("num_batches_tracked"):
            assert not np.array_equal(value, before[name]), f"{name} did not move"


def test_front_half_learning_is_worth_something(small_bundle: Bundle, digits: Dataset) -> None:
    """With a front half that stands still the loss ends higher: gradients really arrive and point the right way."""
    _, moving = train(small_bundle, digits, service(small_bundle, "none").handle, epochs=3, codebook_tolerance=0.05)
    frozen_service = service(small_bundle, "none")

    def no_gradient(message: Message) -> Message:
        reply = frozen_service.handle(message)
        return reply._replace(parts=(bytes(len(reply.parts[0])),)) if reply.kind == "gradient" else reply

    _, frozen = train(small_bundle, digits, no_gradient, epochs=3, codebook_tolerance=0.05)
    assert moving[-1]["loss"] < 0.95 * frozen[-1]["loss"]


def test_both_sides_hold_the_same_tables(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle)
    seen: list[Any] = []

    def handle(message: Message) -> Message:
        if message.kind == "bye":
            seen.append(server._sessions[message.session].tables)
        return server.handle(message)

    device, events = train(small_bundle, digits, handle, epochs=2, codebook_tolerance=0.02)
    assert events[-2]["codebook"]["version"] > 3
    np.testing.assert_array_equal(seen[0]["codebook"], device.front.tables["codebook"])


def test_evaluation_covers_the_whole_test_set_and_teaches_nothing(small_bundle: Bundle, digits: Dataset) -> None:
    server, counted = service(small_bundle), []
    state = server.setup.back.state_dict()

    def handle(message: Message) -> Message:
        if message.kind == "evaluate":
            counted.append(message.header["n"])
        return server.handle(message)

    front = FrontHalf(small_bundle, "onnxruntime", 1)
    device = Device(front, Loopback(handle, Meter()), Options("d"), lambda event: None)
    device.session.hello(1)
    accuracy, loss = device.evaluate(Images(digits.test_images[:70], digits.test_labels[:70]))
    assert sum(counted) == 70 and 0 <= accuracy <= 100 and loss > 0
    for name, value in server.setup.back.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_weights_are_kept(small_bundle: Bundle, digits: Dataset, tmp_path: Any) -> None:
    device, events = train(small_bundle, digits, service(small_bundle).handle, epochs=1, out=str(tmp_path))
    json.dumps(events)
    kept = tensorfile.loads((tmp_path / "front.safetensors").read_bytes())
    for name, value in device.front.state.items():
        np.testing.assert_array_equal(kept[name], value)


def test_too_few_images_for_a_batch(small_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="640 training images in batches of 1000"):
        train(small_bundle, digits, service(small_bundle).handle, batch=1000)


@pytest.mark.parametrize("option", ["epochs", "in_flight"])
def test_counts_below_one(small_bundle: Bundle, digits: Dataset, option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} of 0: expected at least 1"):
        train(small_bundle, digits, service(small_bundle).handle, **{option: 0})


def test_evaluation_every_few_epochs(small_bundle: Bundle, digits: Dataset) -> None:
    """After epochs 2 and 4, and after the last, which is the fifth; training is the same."""
    events = [
        train(small_bundle, digits, service(small_bundle).handle, epochs=5, evaluate_every=every)[1] for every in (1, 2)
    ]
    often, seldom = ([event for event in each if event["event"] == "epoch"] for each in events)
    assert ["accuracy" in event for event in seldom] == [False, True, False, True, True]
    assert [event["loss"] for event in seldom] == [event["loss"] for event in often]
    assert seldom[-1]["accuracy"] == often[-1]["accuracy"] == events[1][-1]["accuracy"]

"""The device's loop against the real service, in one process, through real frames."""

import json
import os
from typing import Any

import numpy as np
import pytest

from edgekit import kept, tensorfile
from edgekit.bundle import Bundle
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.line.frame import Message
from edgekit.line.meter import Meter
from edgekit.runtime.evaluation import evaluate
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from tests.runtime.loopback import TEST_SHARE, service, train


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
            seen.append(server.fleet.sessions[message.session].tables)
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
    device.session.hello(70, 3, 1)
    labels = digits.test_labels[:70]
    found = evaluate(device.session, Images(digits.test_images[:70], labels))
    assert sum(counted) == 70 and 0 <= found["accuracy"] <= 100 and found["test_loss"] > 0
    images, correct = (np.array(found["by_class"][key]) for key in ("images", "correct"))
    assert images.tolist() == np.bincount(labels, minlength=10).tolist() and (correct <= images).all()
    assert found["accuracy"] == pytest.approx(100 * correct.sum() / 70)
    assert found["balanced_accuracy"] == pytest.approx(100 * (correct / images).mean()) != found["accuracy"]
    # What the server counted is the same, of the test split and of the validation split apart.
    held_out = evaluate(device.session, Images(digits.test_images[70:90], digits.test_labels[70:90]), validation=True)
    (session,) = server.fleet.sessions.values()
    assert (session.test.images, session.test.correct) == (70, correct.sum())
    assert (session.validation.images, session.validation.correct) == (20, sum(held_out["by_class"]["correct"]))
    assert session.test.mean_loss == pytest.approx(found["test_loss"], abs=1e-6)
    for name, value in server.setup.back.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_weights_are_kept(small_bundle: Bundle, digits: Dataset, tmp_path: Any) -> None:
    device, events = train(small_bundle, digits, service(small_bundle).handle, epochs=1, out=str(tmp_path))
    json.dumps(events)
    written = tensorfile.loads((tmp_path / "front.safetensors").read_bytes())
    for name, value in device.front.state.items():
        np.testing.assert_array_equal(written[name], value)


def test_weights_are_kept_in_the_middle_of_an_epoch(
    small_bundle: Bundle, digits: Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "EVERY_S", 0.0)
    monkeypatch.setattr(kept, "TIMES_AS_LONG", 0.0)
    server = service(small_bundle)
    there: list[bool] = []

    def handle(message: Message) -> Message:
        if message.kind == "feature":
            there.append((tmp_path / "front.safetensors").exists())
        return server.handle(message)

    train(small_bundle, digits, handle, epochs=1, out=str(tmp_path))
    assert there == [False] + [True] * 19


def test_an_earlier_front_half_is_not_overwritten_unasked(small_bundle: Bundle, digits: Dataset, tmp_path: Any) -> None:
    train(small_bundle, digits, service(small_bundle).handle, epochs=1, out=str(tmp_path))
    before = (tmp_path / "front.safetensors").read_bytes()
    heard: list[Message] = []
    with pytest.raises(UsageError, match="earlier run"):
        train(small_bundle, digits, heard.append, epochs=1, out=str(tmp_path))
    assert not heard and (tmp_path / "front.safetensors").read_bytes() == before
    train(small_bundle, digits, service(small_bundle).handle, epochs=2, out=str(tmp_path), overwrite=True)
    assert (tmp_path / "front.safetensors").read_bytes() != before


def test_a_full_disk_ends_only_a_training_that_is_over(
    small_bundle: Bundle, digits: Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = []

    def full(number: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    front = FrontHalf(small_bundle, "onnxruntime", 1)
    options = Options("d", epochs=2, out=str(tmp_path))
    device = Device(front, Loopback(service(small_bundle).handle, Meter()), options, events.append)
    images = Images(digits.train_images[:64], digits.train_labels[:64])
    with pytest.raises(UsageError, match="No space left"):
        device.train(images, images)
    (told,) = (event for event in events if event["event"] == "not_kept")
    assert told["epoch"] == 1 and "No space left" in told["reason"]


def test_a_batch_that_is_left_out_does_not_count(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle)
    learned: list[float] = []

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        if reply.kind == "gradient" and reply.step % 4:
            return reply._replace(header={**reply.header, "loss": 0.0, "right": 0, "dev": 0.0}, parts=(b"",))
        if reply.kind == "gradient":
            learned.append(reply.header["loss"])
        return reply

    _, events = train(small_bundle, digits, handle, epochs=1)
    (epoch,) = (event for event in events if event["event"] == "epoch")
    assert (epoch["step"], epoch["images"]) == (20, 5 * 32) and epoch["gradient_deviation"] > 0.1
    assert epoch["loss"] == pytest.approx(np.mean(learned)) and epoch["staleness"] == 0


def test_a_warning_is_told_once_while_it_lasts(small_bundle: Bundle, digits: Dataset) -> None:
    server, said = service(small_bundle), [""] * 3 + ["odd"] * 5 + [""] * 2 + ["odd"] * 3 + ["odder"] * 7

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        return (
            reply._replace(header={**reply.header, "warning": said[reply.step]}) if reply.kind == "gradient" else reply
        )

    _, events = train(small_bundle, digits, handle, epochs=1)
    warned = [(event["step"] - 1, event["warning"]) for event in events if event["event"] == "warned"]
    assert warned == [(3, "odd"), (10, "odd"), (13, "odder")]


def device_of(bundle: Bundle, batch: int) -> Device:
    return Device(FrontHalf(bundle, "onnxruntime", 1), Loopback(service(bundle).handle, Meter()),
                  Options("d", batch=batch), lambda event: None)  # fmt: skip


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_for_a_batch(small_bundle: Bundle, digits: Dataset, images: int) -> None:
    with pytest.raises(UsageError, match=f"{images} training images: expected at least 2 for a batch"):
        device_of(small_bundle, 32).steps_per_epoch(Images(digits.train_images[:images], digits.train_labels[:images]))


@pytest.mark.parametrize(
    ("images", "batch", "sizes"),
    [(64, 32, [32, 32]), (65, 32, [22, 22, 21]), (20, 32, [20]), (2, 2, [2]), (5, 2, [3, 2]), (3, 2, [3])],
)
def test_a_share_is_split_evenly_and_nothing_is_left_out(
    small_bundle: Bundle, digits: Dataset, images: int, batch: int, sizes: list[int]
) -> None:
    device = device_of(small_bundle, batch)
    steps = device.steps_per_epoch(Images(digits.train_images[:images], digits.train_labels[:images]))
    epochs = [device.batches(images, steps) for _ in range(2)]
    for batches in epochs:
        assert [len(each) for each in batches] == sizes
        assert sorted(np.concatenate(batches)) == list(range(images))
    if images > 3:
        first, second = (np.concatenate(batches) for batches in epochs)
        assert not np.array_equal(first, second), "each epoch has its own order"


def test_every_image_is_learned_from(small_bundle: Bundle, digits: Dataset) -> None:
    _, events = train(small_bundle, digits, service(small_bundle).handle, epochs=2, batch=300)
    assert [event["images"] for event in events if event["event"] == "epoch"] == [640, 1280]
    assert (events[-1]["step"], events[-1]["steps"]) == (6, 6)


def test_a_test_tells_of_the_fleet_and_keeps_the_best(small_bundle: Bundle, digits: Dataset, tmp_path: Any) -> None:
    _, events = train(small_bundle, digits, service(small_bundle).handle, epochs=3, out=str(tmp_path))
    epochs = [event for event in events if event["event"] == "epoch"]
    for event in epochs:
        # There is one device: what it tested is what all tested.
        assert event["fleet"]["images"] == TEST_SHARE and event["fleet"]["accuracy"] == event["accuracy"]
        assert event["fleet"]["test_loss"] == pytest.approx(event["test_loss"], abs=1e-5)
    found = [event["accuracy"] for event in epochs]
    assert [event["fleet"]["best"] for event in epochs] == [
        accuracy > max(found[:n], default=-1) for n, accuracy in enumerate(found)
    ]
    best, last = (tensorfile.loads((tmp_path / name).read_bytes()) for name in ("best/front.safetensors",
                                                                                "front.safetensors"))  # fmt: skip
    same = all(np.array_equal(best[name], last[name]) for name in last)
    assert same == epochs[-1]["fleet"]["best"]


def test_validation_images_decide_which_is_the_best(small_bundle: Bundle, digits: Dataset) -> None:
    server, events = service(small_bundle), list[dict[str, Any]]()
    server.on_event = events.append
    told: list[dict[str, Any]] = []
    front = FrontHalf(small_bundle, "onnxruntime", 1)
    device = Device(front, Loopback(server.handle, Meter()), Options("d", epochs=3), told.append)
    splits = [Images(digits.test_images[row], digits.test_labels[row]) for row in (slice(0, 50), slice(50, 90))]
    device.train(Images(digits.train_images[:128], digits.train_labels[:128]), *splits)
    tests = [event for event in events if event["event"] == "tested"]
    epochs = [event for event in told if event["event"] == "epoch"]
    found = [event["validation_accuracy"] for event in tests]
    assert found == [event["validation_accuracy"] for event in epochs] and len(found) == 3
    assert [event["images"] for event in tests] == [50, 50, 50]
    assert [event["best"] for event in tests] == [each > max(found[:n], default=-1) for n, each in enumerate(found)]


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

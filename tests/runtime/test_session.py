"""One session against the real service, in one process, through real frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.data.augment import Augmentation
from edgekit.data.base import Dataset
from edgekit.errors import Diverged, PayloadError, Quarantined, Refused, UsageError
from edgekit.line import frame
from edgekit.line.frame import Message
from edgekit.line.meter import Meter
from edgekit.runtime.front import Forward
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.server.service import error_message
from tests.runtime.loopback import coded_by, service, train


@pytest.mark.parametrize("depth", [2, 4])
def test_several_batches_in_flight(small_bundle: Bundle, digits: Dataset, depth: int) -> None:
    _, events = train(small_bundle, digits, service(small_bundle).handle, epochs=4, in_flight=depth)
    assert events[-1]["images"] == 4 * 640
    assert events[-1]["accuracy"] > 50


@pytest.fixture(scope="module")
def context_bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Bundle:
    return coded_by("context", small_bundle, tmp_path_factory.mktemp("context"))


@pytest.mark.parametrize("depth", [1, 3])
def test_codings_send_the_same_in_fewer(small_bundle: Bundle, digits: Dataset, depth: int, tmp_path: Path) -> None:
    states, sent = [], []
    for coding in ("packed", "context", "temporal"):
        bundle = coded_by(coding, small_bundle, tmp_path)
        device, events = train(bundle, digits, service(bundle).handle, epochs=4, in_flight=depth)
        states.append(device.front.state)
        sent.append([event["bytes_up"] for event in events if event["event"] == "epoch"])
    for name, value in states[0].items():
        for state in states[1:]:
            np.testing.assert_array_equal(state[name], value)
    packed, context, memory = sent
    assert context[3] < 0.9 * packed[3]
    # Two bytes an image are its number, and nothing is remembered yet.
    assert memory[0] > context[0] and memory[3] - memory[2] < 0.9 * (context[3] - context[2])


def test_a_context_does_not_remember_for_ever(context_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match=r"9 batches in flight.*at most 8"):
        train(context_bundle, digits, service(context_bundle).handle, in_flight=9)


class Seen(FrontHalf):
    """A front half that keeps the images that it was given, normalised."""

    def __init__(self, bundle: Bundle) -> None:
        self.learned_from: list[np.ndarray] = []
        self.encoded: list[np.ndarray] = []
        super().__init__(bundle, "onnxruntime", 1)

    def forward(self, image: np.ndarray) -> Forward:
        self.learned_from.append(image)
        return super().forward(image)

    def encode(self, image: np.ndarray) -> Arrays:
        self.encoded.append(image)
        return super().encode(image)


def seen(bundle: Bundle, digits: Dataset, **options: Any) -> Seen:
    """What a device with 100 training images learned from in two epochs, and what it was tested on."""
    front = Seen(bundle)
    transport = Loopback(service(bundle).handle, Meter())
    device = Device(front, transport, Options("d", epochs=2, **options), lambda event: None)
    parts = [Images(digits.test_images[part], digits.test_labels[part]) for part in (slice(0, 40), slice(40, 70))]
    device.train(Images(digits.train_images[:100], digits.train_labels[:100]), *parts)
    return front


def test_training_images_are_augmented_and_others_are_not(small_bundle: Bundle, digits: Dataset) -> None:
    front, plain = (seen(small_bundle, digits, seed=3, augment=augment) for augment in ("flip,crop:2", None))
    order, learned_from = np.random.default_rng(3), []
    for step, batch in enumerate(b for _ in range(2) for b in np.array_split(order.permutation(100), 4)):
        changed = Augmentation(True, 2)(digits.train_images[batch], np.random.default_rng((3, 2, 0, step)))
        learned_from.append(front.normalise(changed))
        np.testing.assert_array_equal(plain.learned_from[step], front.normalise(digits.train_images[batch]))
    np.testing.assert_array_equal(np.concatenate(front.learned_from), np.concatenate(learned_from))
    tested = np.concatenate(front.encoded)
    np.testing.assert_array_equal(tested, front.normalise(np.concatenate([digits.test_images[:70]] * 2)))
    np.testing.assert_array_equal(tested, np.concatenate(plain.encoded))


def test_augmentation_repeats_with_any_number_in_flight(small_bundle: Bundle, digits: Dataset) -> None:
    options = ({"seed": 3}, {"seed": 3}, {"seed": 3, "in_flight": 3}, {"seed": 4})
    first, again, deep, other = (seen(small_bundle, digits, augment="crop:2,flip", **each) for each in options)
    for name, value in first.state.items():
        np.testing.assert_array_equal(value, again.state[name])
    images = [np.concatenate(front.learned_from) for front in (first, deep, other)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_augmentation_wants_no_memory(small_bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    bundle, messages = coded_by("temporal", small_bundle, tmp_path), list[Message]()
    with pytest.raises(UsageError, match=r"--augment flip: SGQ\(.*take coding=context"):
        train(bundle, digits, messages.append, augment="flip", out=str(tmp_path / "out"))
    assert not messages and not (tmp_path / "out").exists()


def test_images_too_small_to_be_cropped(small_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="crop:16 of images of 16 x 16 pixels"):
        train(small_bundle, digits, service(small_bundle).handle, augment="crop:16")


def test_bytes_are_those_of_the_frames(small_bundle: Bundle, digits: Dataset) -> None:
    server, up, down = service(small_bundle), [], []

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        if message.kind not in ("evaluate", "tested"):
            up.append(len(frame.encode(message)))
            down.append(len(frame.encode(reply)))
        return reply

    _, events = train(small_bundle, digits, handle, epochs=1)
    assert (events[-1]["bytes_up"], events[-1]["bytes_down"]) == (sum(up), sum(down))


def test_wrong_bundle_is_refused_with_both_hashes(small_bundle: Bundle, any_bundle: Bundle, digits: Dataset) -> None:
    if any_bundle.digest == small_bundle.digest:
        pytest.skip("the same bundle")
    with pytest.raises(Refused) as caught:
        train(any_bundle, digits, service(small_bundle).handle)
    assert small_bundle.digest in str(caught.value) and any_bundle.digest in str(caught.value)


def test_reply_out_of_order(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle)

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        return reply._replace(step=reply.step + 1) if reply.kind == "gradient" else reply

    with pytest.raises(PayloadError, match="got a gradient message of step 1, expected gradient of step 0"):
        train(small_bundle, digits, handle)


@pytest.mark.parametrize(
    ("kind", "header", "message"),
    [
        ("gradient", {"right": 33}, "'correct' is 33, expected 0 to 32"),
        ("gradient", {"right": -1}, "'correct' is -1, expected 0 to 32"),
        ("gradient", {"loss": float("nan")}, "'loss' is nan"),
        ("gradient", {"s": None}, r"'seconds' \(header field 's'\) is None"),
        ("gradient", {"lr": float("inf")}, r"'rate' \(header field 'lr'\) is inf"),
        ("result", {"loss": float("nan")}, "'loss' is nan"),
        ("tally", {"right": 10**400}, "tally message: 'correct' is 10"),
        ("weights", {"whole": 2}, "'whole' is 2"),
        ("welcome", {"masked": 1}, "'masked' is 1"),
        (
            "welcome",
            {"optimizer": {"name": "sgd", "momentum": float("inf"), "weight_decay": 0}},
            r"'momentum' \(header field 'optimizer.momentum'\) is inf",
        ),
    ],
)
def test_replies_that_make_no_sense(
    small_bundle: Bundle, digits: Dataset, kind: str, header: dict[str, Any], message: str
) -> None:
    server = service(small_bundle)

    def handle(request: Message) -> Message:
        reply = server.handle(request)
        return reply._replace(header={**reply.header, **header}) if reply.kind == kind else reply

    with pytest.raises(PayloadError, match=message):
        train(small_bundle, digits, handle, epochs=1)


@pytest.mark.parametrize(
    ("kind", "parts", "message"),
    [
        ("result", (b"\x0a" * 32,), "label 10, expected below 10"),
        ("result", (b"\0",), "32 images"),
        ("weights", (b"moved", b""), "an average where front halves are not averaged"),
        ("welcome", (b"", b"tables"), "safetensors"),
    ],
)
def test_parts_of_replies_that_make_no_sense(
    small_bundle: Bundle, digits: Dataset, kind: str, parts: tuple[bytes, ...], message: str
) -> None:
    server = service(small_bundle)

    def handle(request: Message) -> Message:
        reply = server.handle(request)
        return reply._replace(parts=parts) if reply.kind == kind else reply

    with pytest.raises(PayloadError, match=message):
        train(small_bundle, digits, handle, epochs=1)


@pytest.mark.parametrize("error", [Diverged, Quarantined, Refused, UsageError])
def test_an_error_of_the_server_is_what_it_says(small_bundle: Bundle, digits: Dataset, error: Any) -> None:
    server = service(small_bundle)

    def handle(request: Message) -> Message:
        return error_message(error("because"), 1, 0) if request.kind == "feature" else server.handle(request)

    # What is no matter of a device's own is a refusal.
    expected = error if error in (Diverged, Quarantined) else Refused
    with pytest.raises(expected, match="the server refused: because") as caught:
        train(small_bundle, digits, handle, epochs=1)
    assert type(caught.value) is expected


def test_weights_that_go_to_infinity(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle, "none")

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        if reply.kind != "gradient":
            return reply
        return reply._replace(parts=(np.full(32 * 16 * 8 * 8, 1e38, dtype="<f4").tobytes(),))

    with pytest.raises(Diverged, match="is not finite any more: training diverged, lower --lr"):
        train(small_bundle, digits, handle, epochs=1)

"""Measuring on the device: what is counted, what the split adds up to, and what is refused."""

import itertools
import math
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.measure import LEAST, Span, measure_encoding, measure_training, percentiles
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.server.service import Service
from tests.runtime.loopback import service


class Listening:
    """A service that remembers what kinds of messages it got."""

    def __init__(self, answers: Service) -> None:
        self.answers = answers
        self.kinds: list[str] = []

    def __call__(self, message: Any) -> Any:
        self.kinds.append(message.kind)
        return self.answers.handle(message)


def measure(bundle: Bundle, digits: Dataset, seconds: float, **options: Any) -> tuple[dict[str, Any], list[str]]:
    events: list[dict[str, Any]] = []
    handle = Listening(service(bundle))
    device = Device(FrontHalf(bundle, "onnxruntime", 1), Loopback(handle, Meter()), Options("d", **options),
                    events.append)  # fmt: skip
    measure_training(device, Images(digits.train_images[:160], digits.train_labels[:160]), Span(seconds, 2),
                     events.append)  # fmt: skip
    assert [event["event"] for event in events] == ["measuring", "enough", "measured"]
    return events[-1], handle.kinds


@pytest.mark.parametrize("depth", [1, 3])
def test_counts_what_came_after_the_warm_up(small_bundle: Bundle, digits: Dataset, depth: int) -> None:
    measured, kinds = measure(small_bundle, digits, 0.3, in_flight=depth)
    steps = kinds.count("feature")
    # Two to warm up, and those still in flight when the time was over, are trained on and not counted.
    assert measured["steps"] == steps - 2 - (depth - 1)
    assert measured["images"] == 32 * measured["steps"]
    assert measured["seconds"] >= 0.3
    assert measured["images_per_s"] == pytest.approx(measured["images"] / measured["seconds"])
    assert kinds[0] == "hello" and kinds[-1] == "bye"
    # In steady state a gradient comes back when `depth - 1` others have been learned from since its forward pass.
    assert measured["staleness"] == pytest.approx(depth - 1)


def test_bytes_are_those_of_the_frames(small_bundle: Bundle, digits: Dataset) -> None:
    measured, _ = measure(small_bundle, digits, 0.2)
    codes = small_bundle.codec.formula_bits(small_bundle.feature_shape) / 8
    up = measured["bytes_per_image"]["up"]
    assert codes + 1 < up["feature"] < codes + 8, "codes, a label, a share of the header"
    assert set(measured["bytes_per_image"]["down"]) <= {"gradient", "ack"}


def test_the_split_adds_up(small_bundle: Bundle, digits: Dataset) -> None:
    measured, _ = measure(small_bundle, digits, 0.3)
    parts = measured["seconds_per_image"]
    assert set(parts) == {"device_compute", "encode", "network", "server"}
    assert min(parts.values()) >= 0
    # The loopback server works inside `send`, which is nobody's part of the time.
    assert sum(parts.values()) <= 1.001 * measured["seconds"] / measured["images"]


def test_however_short_two_batches_are_measured(small_bundle: Bundle, digits: Dataset) -> None:
    assert measure(small_bundle, digits, 1e-6)[0]["steps"] == LEAST


def test_encodes_without_a_server(small_bundle: Bundle, digits: Dataset) -> None:
    front = FrontHalf(small_bundle, "onnxruntime", 1)
    events: list[dict[str, Any]] = []
    shown = front.normalise(digits.train_images[:100])
    measure_encoding(front, shown, 32, Span(0.1, 2), events.append)
    (encoded,) = events
    assert encoded["event"] == "encoded" and encoded["images"] % 32 == 0 and encoded["seconds"] >= 0.1
    codes = small_bundle.codec.formula_bits(small_bundle.feature_shape) / 8
    assert codes <= encoded["payload_bytes_per_image"] < codes + 1


@pytest.mark.parametrize("span", [Span(0, 1), Span(-1, 1), Span(math.inf, 1), Span(math.nan, 1), Span(1, 0)])
def test_nothing_to_measure(span: Span) -> None:
    with pytest.raises(UsageError, match="expected some seconds"):
        span.check()


def test_percentiles() -> None:
    assert percentiles([float(n) for n in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles(list(itertools.repeat(2.0, 3)))["p99"] == 2.0

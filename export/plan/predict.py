"""Predicts how many images a second each cut trains on a board behind a link, and which resource limits it.

One device has one batch in flight, so a step is a sum::

    step     = device + 8 * bytes up / uplink + 8 * bytes down / downlink + round trip + server
    images/s = min(devices * batch / step, batch / server)

Devices have a link each and take turns at one server. *device* is the training forward pass with the quantise stage,
and the gradients: a roofline of the board's CPU (`roofline.py`), or measured on this host in ONNX Runtime on one
thread. *server* is the back half's step, measured on this host. Bytes are of frames that were really coded.

Encoding alone, nothing comes back, and a batch is encoded while the one before is sent::

    encoded images/s = devices * batch / max(encode, 8 * bytes up / uplink)

where *encode* is the deployed front half on the board's engine. Left out: the device's optimizer, protocols
below the frame, codebooks on the line, and, where it is not measured, packing and following the codebook.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from edgekit.device_profiles.profile import Profile
from edgekit.export.plan.cuts import Cut
from edgekit.export.plan.observe import Observed
from edgekit.export.plan.roofline import encode_seconds, training_bytes, training_seconds
from edgekit.link.link import Link


class Step(NamedTuple):
    """Seconds of one training step of one device, by resource, one after another."""

    device: float
    uplink: float
    downlink: float
    latency: float
    server: float


class Prediction(NamedTuple):
    """What is predicted for one cut. Bytes are per image: of frames really coded, and of codes by formula."""

    cut: Cut
    step: Step
    images_per_s: float
    #: The field of `Step` that takes longest; "server" where devices wait for their turn.
    binds: str
    encode_s: float
    encoded_images_per_s: float
    bytes_up: float
    bytes_down: float
    formula_bytes_up: float
    #: Weights, gradients, momentum and all values of the front half while it learns, at least.
    memory_bytes: int
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """Nested dicts, every field."""
        return {**self._asdict(), "cut": self.cut._asdict(), "step": self.step._asdict()}


def predict(observed: Iterable[Observed], board: Profile, link: Link, devices: int) -> list[Prediction]:
    """A prediction for each cut, fastest first."""
    predictions = (_predict(one, board, link, devices) for one in observed)
    return sorted(predictions, key=lambda prediction: -prediction.images_per_s)


def rate(step: Step, batch: int, devices: int) -> float:
    """Images a second of `devices` devices that take turns at one server."""
    return min(devices * batch / sum(step), batch / step.server)


def binding(step: Step, devices: int) -> str:
    """The resource that limits `rate` most."""
    if devices * step.server > sum(step):
        return "server"
    return max(step._asdict().items(), key=lambda item: item[1])[0]


def _predict(observed: Observed, board: Profile, link: Link, devices: int) -> Prediction:
    batch, timed = observed.batch, observed.front_time
    step = Step(
        device=timed.learn_s if timed else training_seconds(observed.front, board),
        # On average each way takes half the jitter longer. While the link stalls, nothing moves on it.
        uplink=8 * observed.frame_up / link.up_bit_s / link.moving,
        downlink=8 * observed.frame_down / link.down_bit_s / link.moving,
        latency=(link.round_trip_s + link.jitter_s) / link.moving,
        server=observed.server_s,
    )
    encode_s = timed.encode_s if timed else encode_seconds(observed.front, board)
    memory = training_bytes(observed.front)
    return Prediction(
        cut=observed.cut,
        step=step,
        images_per_s=rate(step, batch, devices),
        binds=binding(step, devices),
        encode_s=encode_s,
        encoded_images_per_s=devices * batch / max(encode_s, step.uplink),
        bytes_up=observed.frame_up / batch,
        bytes_down=observed.frame_down / batch,
        formula_bytes_up=observed.formula_up,
        memory_bytes=memory,
        fits=memory <= board.hardware.memory_gib * 2**30,
    )

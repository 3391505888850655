"""Bound: how finely each gradient is sent, so that the front half's gradient stays within a bound of what it would be.

::

    gradient, zone --dct--> payload --unpack--> what arrives --error_of--> above the bound: again, with a smaller zone
                                                                  └------> the next zone

The server does not have the front half. It looks at what a front half would learn whose last layer is a convolution of
1x1 with a bias: how far the gradient of that layer's weights is from what it would be without compression. The last
layer's input is not there either; the decoded feature, its output, stands for it.
"""

import math

import numpy as np
import torch

from edgekit.codecs.gradients.dct import DCT
from edgekit.server.calibrate import Calibrator

#: Of every so many gradients of a device the error is measured, and of each of the first ones.
EVERY, FIRST = 4, 8
#: Sendings of one gradient: the last is what it is.
TRIES = 4
#: The zone that a device begins with, the smallest and the largest.
BEGIN, LEAST, MOST = 1.0, 0.05, 8.0
#: What is aimed at, as a share of the bound, so that few gradients are sent twice; how the error grows with the zone
#: (error ~ zone ** GROWTH, see bench/calibration.py); and how far a zone moves at once.
AIM, GROWTH, FACTOR = 0.9, 0.85, 2.0


class Fineness:
    """The zone of one device's gradients."""

    def __init__(self) -> None:
        self.zone = BEGIN
        #: Gradients so far.
        self._sent = 0

    def state(self) -> dict[str, float]:
        """All of it, as a state (`edgekit.statefile`)."""
        return dict(vars(self))

    def restore(self, state: dict[str, float]) -> None:
        """Goes on from `state`."""
        vars(self).update(state)

    def send(
        self,
        calibrator: Calibrator,
        gradient: np.ndarray,
        active: np.ndarray | None,
        feature: torch.Tensor,
        session: int,
        step: int,
    ) -> tuple[bytes, float, float | None]:
        """Payload and deviation as of `Calibrator.send`, and the error, None where it was not measured.

        `gradient` and `feature`, the decoded one, are (n,C,h,w) f32, channels in coded order. With a mask, `active`,
        the error is that of the masked gradient: the rest never reaches a weight. A measured error is above the
        calibrator's bound only where even the smallest zone, or the last of the tries, leaves it there.
        """
        assert calibrator.bound is not None
        measured = (self._sent < FIRST or self._sent % EVERY == 0) and bool(gradient.any())
        self._sent += 1
        whole = gradient if active is None else np.where(active, gradient, np.float32(0))
        for attempt in range(TRIES):
            codec = DCT(**{**calibrator.codec.config, "zone": self.zone})
            payload, deviation = codec.send(gradient, active, calibrator.rng(session, step))
            if not measured:
                return payload, deviation, None
            error = error_of(whole, codec.unpack(payload, gradient.shape, active), feature.cpu().numpy())
            last = error <= calibrator.bound or attempt == TRIES - 1 or self.zone == LEAST
            self._move(calibrator.bound / max(error, 1e-6))
            if last:
                break
        return payload, deviation, error

    def _move(self, room: float) -> None:
        """Takes the zone that the next error is aimed with, the last one having been 1 / `room` of the bound."""
        factor = (AIM * room) ** (1 / GROWTH)
        self.zone = min(max(self.zone * min(max(factor, 1 / FACTOR), FACTOR), LEAST), MOST)


def error_of(gradient: np.ndarray, arrived: np.ndarray, feature: np.ndarray) -> float:
    """Length of the error of the last layer's gradient over the length of that gradient; all (n,C,h,w) f32."""
    # So that no square overflows or vanishes.
    largest = np.abs(gradient).max()
    if not largest:
        return 0.0
    inputs = feature / max(np.abs(feature).max(), np.float32(1e-30))
    whole = _length(gradient / largest, inputs)
    return _length((gradient - arrived) / largest, inputs) / whole if whole else 0.0


def _length(gradient: np.ndarray, feature: np.ndarray) -> float:
    """Length of the gradient of a 1x1 convolution's weights and bias, features scaled to a root mean square of 1."""
    channels = gradient.shape[1]
    rows, inputs = (part.transpose(1, 0, 2, 3).reshape(channels, -1) for part in (gradient, feature))
    scale = max(float(np.square(inputs).mean(dtype=np.float64)), 1e-30)
    weights = float(np.square(rows @ inputs.T, dtype=np.float64).sum()) / scale
    return math.sqrt(weights + float(np.square(rows.sum(axis=1), dtype=np.float64).sum()))

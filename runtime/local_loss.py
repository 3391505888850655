"""The local loss: that of a small head on the device, which classifies the feature itself.

::

    feature, labels --local.onnx--> local gradient at the cut, made as long as it is to count
    server's gradient, or none in this step --> + --> the gradient that the front half learns from
"""

from typing import Any, Dict, Optional

import numpy as np

from edgekit.errors import PayloadError
from edgekit.line.frame import HEAD_SIZE
from edgekit.line.meter import Meter
from edgekit.runtime.front import Forward, Front, Local


class LocalLoss:
    """The local loss of `front`, counted `weight` times the server's; with 0 there is none.

    How long the two gradients are says little of how much they should count: the head is small and learns otherwise
    than the back half. So the local one is made `weight` times as long as the server's, batch by batch. In a step that
    the server sends no gradient for it alone is learned from, as long as the sum of both was in the last step that had
    one; before the first, as long as it is.
    """

    def __init__(self, front: Front, weight: float, meter: Meter) -> None:
        if weight:
            front.open_local()
        self.weight = weight
        #: Sum of the loss over all images learned from.
        self.total = 0.0
        self._front = front
        self._meter = meter
        #: ||sum of both gradients|| in the last step that had both.
        self._length: Optional[float] = None

    def state(self) -> Dict[str, Any]:
        """What it learned, as a state (`edgekit.statefile`)."""
        return {"total": self.total, "length": self._length}

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`."""
        self.total, self._length = state["total"], state["length"]

    def of(self, forward: Forward, labels: np.ndarray) -> Optional[Local]:
        """The local loss of a batch with `labels` (n,), and its gradients."""
        if not self.weight:
            return None
        with self._meter.timed("compute"):
            return self._front.local(forward, one_hot(labels, self._front.classes))

    def joined(self, local: Optional[Local], server: Optional[np.ndarray]) -> np.ndarray:
        """The gradient (n,C,h,w) f32 that a batch is learned from, given what `of` gave and the `server`'s gradient.

        PayloadError where there is neither.
        """
        if local is None:
            if server is None:
                raise PayloadError("gradient message: 'local_only', and there is no local loss", HEAD_SIZE)
            return server
        self.total += local.loss * len(local.gradient)
        if server is not None:
            both = added(server, local.gradient, self.weight)
            # A gradient of zeros, as the server sends where it put a step back, says nothing of the next ones.
            self._length = _length(both) or self._length
            return both
        own = _length(local.gradient)
        scale = self._length / own if self._length is not None and own else 1.0
        return np.asarray(np.float32(scale) * local.gradient)


def added(server: np.ndarray, local: np.ndarray, weight: float) -> np.ndarray:
    """``server + weight * ||server|| / ||local|| * local``, f32."""
    own = _length(local)
    return np.asarray(server + np.float32(weight * _length(server) / own if own else 0.0) * local)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(n,classes) f32 of `labels` (n,)."""
    return np.asarray(np.eye(classes, dtype=np.float32)[labels])


def _length(gradient: np.ndarray) -> float:
    return float(np.linalg.norm(gradient.ravel()))

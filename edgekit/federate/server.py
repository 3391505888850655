"""Server: the weights that clients start from, and the average of what they learned.

::

    client k: weights + local training --payload--> unpack --> average, weighted by images
                                                               | momentum
    weights + update <-- what the clients can follow <---------'
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import PayloadError, UsageError
from edgekit.federate.history import History
from edgekit.moves import moved
from edgekit.parts import join, split
from edgekit.server.averaging import AVERAGES, check_average

#: First byte of what a client gets: nothing new, all weights as float32, or the updates of the rounds that it lacks.
NOTHING, WHOLE, UPDATES = b"\0", b"\1", b"\2"


class Policy(NamedTuple):
    """How updates are averaged, and how the average travels back."""

    #: As in `edgekit.server.averaging`.
    average: str = "mean"
    #: Momentum of the server's step along the average (FedAvgM, Hsu et al. 2019); 0: the average is taken as it is.
    momentum: float = 0.0

    def check(self) -> None:
        """UsageError or UnknownName for what makes no sense."""
        check_average(self.average)
        if not 0 <= self.momentum < 1:
            raise UsageError(f"server momentum {self.momentum}: expected 0 or more, and below 1")


class Server:
    """Begins with `weights`, which all clients have; `up` decodes what they send.

    `down` codes what they get, with what it left out in the rounds before where it keeps that; None: they get all
    weights as float32.
    """

    def __init__(
        self,
        weights: Arrays,
        variances: Sequence[str],
        up: UpdateCodec,
        down: UpdateCodec | None,
        policy: Policy,
        seed: int,
    ) -> None:
        policy.check()
        #: Number of the next round, and the weights that its clients start from.
        self.number = 0
        self.weights = weights
        self._variances, self._up, self._policy, self._seed = tuple(variances), up, policy, seed
        self._down = None if down is None else down.sender(learns=False)
        self._velocity: Arrays = {}
        self._history = History()

    def message(self, has: int) -> bytes:
        """What brings a client that has the weights of round `has` to those of the next round."""
        if has == self.number:
            return NOTHING
        lacking = self._history.since(has, self.number)
        if lacking is not None:
            return UPDATES + join(lacking)
        return WHOLE + FedAvg().pack(self.weights, np.random.default_rng(0))

    def close(self, payloads: Sequence[bytes], images: Sequence[int]) -> None:
        """Ends a round with the payloads of its clients, and the images that each has learned from.

        PayloadError where one does not parse; all is then as it was.
        """
        shapes = shapes_of(self.weights)
        change = AVERAGES[self._policy.average]([self._up.unpack(payload, shapes) for payload in payloads], images)
        if self._policy.momentum:
            m = np.float32(self._policy.momentum)
            change = {
                name: m * self._velocity[name] + value if self._velocity else value for name, value in change.items()
            }
            self._velocity = change
        if self._down is not None:
            payload, change = self._down.send(change, np.random.default_rng((self._seed, self.number)))
            self._history.add(self.number, payload, 4 * sum(array.size for array in self.weights.values()))
        self.weights = moved(self.weights, change, self._variances)
        self.number += 1

    @property
    def state(self) -> dict[str, Any]:
        """All that changes, as a state (`edgekit.statefile`)."""
        return {
            "number": self.number, "weights": self.weights, "velocity": self._velocity,
            "left_out": None if self._down is None else self._down.state,
            "payloads": {
                str(number): np.frombuffer(payload, np.uint8) for number, payload in self._history.payloads.items()
            },
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`."""
        self.number, self.weights, self._velocity = state["number"], state["weights"], state["velocity"]
        self._history.payloads = {int(number): array.tobytes() for number, array in state["payloads"].items()}
        if self._down is not None:
            self._down.restore(state["left_out"])


def follow(weights: Arrays, message: bytes, down: UpdateCodec | None, variances: Sequence[str]) -> Arrays:
    """The weights of a client that had `weights` after the server's `message`. PayloadError on any other bytes."""
    kind, rest = message[:1], message[1:]
    shapes = shapes_of(weights)
    if kind == NOTHING and not rest:
        return weights
    if kind == WHOLE:
        return FedAvg().unpack(rest, shapes)
    if kind != UPDATES or down is None:
        raise PayloadError(f"a message of {len(message)} B that begins with {kind!r}: expected weights")
    for payload in split(rest):
        weights = moved(weights, down.unpack(payload, shapes), variances)
    return weights

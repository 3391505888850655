"""Devices of one `Rounds`, without messages: a front half of few weights, and what is learned of them."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.codecs.updates.flat import shapes_of
from edgekit.line.messages import Hello, Update
from edgekit.moves import moved
from edgekit.server.fleet import Fleet
from edgekit.server.policy import Every, RoundPolicy
from edgekit.server.rounds import Rounds
from edgekit.server.session import Session
from tests.server.talk import CODEC, TABLES

CODED = FedAvg()
FRONT = {
    "conv.weight": np.array([[1, 2], [3, 4]], np.float32),
    "norm.running_mean": np.array([0, 0], np.float32),
    "norm.running_var": np.array([1, 1], np.float32),
    "norm.num_batches_tracked": np.array(0),
}
STATISTICS = ("norm.running_mean", "norm.running_var")
LEARNED = ("conv.weight", *STATISTICS)
SETUP: Any = SimpleNamespace(
    front=FRONT, learned=LEARNED, statistics=STATISTICS, variances=("norm.running_var",), tables=TABLES, codec=CODEC
)
EPOCH = RoundPolicy(Every(epochs=1), CODED, "mean")


def change(value: float) -> Arrays:
    """An update of every shared weight."""
    return {name: np.full_like(array, value) for name, array in FRONT.items() if array.dtype == np.float32}


def packed(update: Arrays) -> bytes:
    return CODED.pack(update, np.random.default_rng(0))


class Line:
    """Devices of one `Rounds`, and the weights that each has."""

    def __init__(self, policy: RoundPolicy = EPOCH, devices: int = 2) -> None:
        self.down = policy.down or policy.codec
        self.rounds, self.fleet = Rounds(policy, SETUP, 0), Fleet()
        self.sessions = [Session.begin(n, Hello("b", f"device-{n}", 40, 4, 5), SETUP) for n in range(1, devices + 1)]
        for session in self.sessions:
            self.fleet.join(session)
        self.weights = dict(self.rounds.weights)

    def close(self, values: Sequence[float | None], images: Sequence[int]) -> bytes:
        """A round with changes of these values by so many images; None: nothing was learned."""
        entries = []
        for session, value, n in zip(self.sessions, values, images, strict=True):
            update = Update(session.number, self.rounds.number, n, 0, b"" if value is None else packed(change(value)))
            entries.append((session, update, self.rounds.take(session, update)))
        payload, _ = self.rounds.close(self.fleet, entries)
        for session in self.sessions:
            session.round = self.rounds.number
        if payload:
            arrived = self.down.unpack(payload, shapes_of(self.weights))
            self.weights = moved(self.weights, arrived, ["norm.running_var"])
        return payload

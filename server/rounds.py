"""Rounds: front halves averaged over the devices (federated averaging), their codebooks too.

::

    device k: weights now - weights of the last round --Update--> average, weighted by images
                                                                  | server's optimiser, what the last round left out
                                                                  | where the codec keeps it
    all devices: weights of the last round + update <--Weights--- what the codec of the way down makes of the change
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.apart import apart
from edgekit.carried import NO_REST, Carried, Sender
from edgekit.codecs.base import Arrays, CodebookCodec
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import PayloadError, Refused
from edgekit.line.frame import HEAD_SIZE
from edgekit.line.messages import Update
from edgekit.moves import moved, shared
from edgekit.server.averaging import AVERAGES
from edgekit.server.fleet import Fleet
from edgekit.server.layers import update_layers
from edgekit.server.policy import RoundPolicy
from edgekit.server.session import Session
from edgekit.server.setup import Setup

#: In place of a round's number, for a session that waits for weights and has sent all that it learned.
NONE = -1


class Rounds:
    """The front half that all devices of `fleet` have in step. All of it is plain arrays and numbers."""

    def __init__(self, policy: RoundPolicy, setup: Setup, seed: int) -> None:
        policy.check()
        self.policy = policy
        self._seed = seed
        #: Number of the next round.
        self.number = 0
        #: The weights in step, and batch norm's statistics where they are averaged.
        self.weights = shared(setup.front, setup.learned, setup.statistics if policy.norms == "local" else ())
        #: The codec's tables in step.
        self.tables = {name: array.copy() for name, array in setup.tables.items()}
        #: The modules that every round carries; none: it carries all.
        self.layers = update_layers(policy.layers, setup.front, setup.learned)
        #: Whether the weights are those of one network: the last round carried all layers.
        self.in_step = True
        self._carried = Carried(self.weights, self.layers)
        self._variances = setup.variances
        self._codec = setup.codec
        self._up = apart(policy.codec, setup.statistics)
        self._down = Sender(self._carried, apart(policy.down or policy.codec, setup.statistics), learns=False)
        self._velocity: Arrays = {}

    def state(self) -> dict[str, Any]:
        """All of it but the policy, as a state (`edgekit.statefile`)."""
        return {
            "number": self.number, "weights": self.weights, "tables": self.tables, "left_out": self._down.state,
            "velocity": self._velocity, "in_step": self.in_step,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`."""
        self.number, self.weights, self.tables = state["number"], state["weights"], state["tables"]
        self._velocity, self.in_step = state["velocity"], state["in_step"]
        self._down.restore(state["left_out"])

    def per_epoch(self, fleet: Fleet) -> int:
        """Rounds in an epoch where one comes after so many steps of the device that has most."""
        steps = max(fleet.steps_of(session) for session in fleet.sessions.values())
        return max(round(steps / self.policy.every.steps), 1) if self.policy.every.steps else 0

    def images(self, session: Session, per_epoch: int) -> int:
        """Images that `session` plans from one round to the next, or skips; 0 where rounds go by the clock."""
        every = self.policy.every
        return session.hello.images // max(per_epoch, 1) if every.steps else session.hello.images * every.epochs

    def rest(self, fleet: Fleet) -> None:
        """Draws who sits the next round out, and tells `fleet` what is skipped by that."""
        names = [session.device for session in fleet.in_order()]
        resting = self.policy.sampling.resting(names, self.number, self._seed) if names else set()
        for session in fleet.sessions.values():
            session.resting = session.device in resting
            now = self.images(session, self.per_epoch(fleet))
            session.later = max(session.left - now, 0) if now else 0
        by_clock = bool(self.policy.every.seconds)
        fleet.active = 1.0 if by_clock else 1.0 - len(resting) / max(len(names), 1)

    def whole(self) -> bytes:
        """The weights themselves, for a device that has not those of the last round."""
        return FedAvg().pack(self.weights, np.random.default_rng(0))

    def take(self, session: Session, update: Update) -> Arrays | None:
        """What `update` says; None where it says nothing. PayloadError or Refused when it cannot be taken.

        What is wrong with one update is found here: when the round ends it would be an error of all devices.
        """
        if not update.update:
            return None
        if not self.policy.every:
            raise Refused(f"an update of {len(update.update)} B: front halves are not averaged here (--sync-every 0)")
        if not update.images:
            raise PayloadError("update message: weights that moved with no images", HEAD_SIZE)
        if "order" in self.tables and not np.array_equal(session.tables["order"], self.tables["order"]):
            raise Refused(f"{session.device} grouped its channels anew: with rounds all keep one grouping")
        change = self._carried.unpack(self._up, update.update, update.rest, shapes_of(self.weights))
        if not all(np.isfinite(array).all() for array in change.values()):
            raise Refused("an update that is infinite or not a number: training diverged on this device, lower --lr")
        return change

    def close(self, fleet: Fleet, updates: Sequence[tuple[Session, Update, Arrays | None]]) -> tuple[bytes, int]:
        """Ends a round with `updates` and what `take` made of them.

        Returns what brings devices from the last round's weights to the new ones, and how many of these bytes are of
        layers that only rounds before a test carry. An update of an earlier round comes too late and is only counted.
        """
        in_time = [each for each in updates if each[0].round == self.number]
        fleet.late_updates += sum(session.round not in (self.number, NONE) for session, _, _ in updates)
        self.number += 1
        arrived = [(session, change, update.images) for session, update, change in in_time if change is not None]
        # Devices that test need the same layers, also where nobody has learned since the last round.
        everything = bool(self._carried.rest) and any(update.test for _, update, _ in updates)
        if not arrived and not everything:
            return b"", NO_REST
        changes = [(change, images) for _, change, images in arrived]
        change = self._average(self._carried.chosen, changes)
        if everything:
            change.update(self._average(self._carried.rest, changes))
        self.in_step = everything or not self._carried.rest
        if self.policy.momentum:
            for name, value in change.items():
                self._velocity[name] = np.float32(self.policy.momentum) * self._velocity.get(name, 0) + value
            change = {name: self._velocity[name].astype(np.float32) for name in change}
        payload, rest, change = self._down.send(change, np.random.default_rng((self._seed, self.number)))
        before = {name: self.weights[name] for name in change}
        self.weights = {**self.weights, **moved(before, change, self._variances)}
        self._merge([session for session, _, _ in arrived], [images for _, _, images in arrived])
        return payload, rest

    def _average(self, names: Sequence[str], changes: Sequence[tuple[Arrays, int]]) -> Arrays:
        """The average of those of `changes`, each by so many images, that have `names`; zeros where none has."""
        having = [(change, images) for change, images in changes if set(names) <= change.keys()]
        if not having:
            return {name: np.zeros_like(self.weights[name]) for name in names}
        updates = [{name: change[name] for name in names} for change, _ in having]
        return AVERAGES[self.policy.average](updates, [images for _, images in having])

    def follow(self, session: Session) -> bytes:
        """Bytes that bring `session` to the codebooks in step; none where it has them."""
        if not self.policy.every or not isinstance(self._codec, CodebookCodec):
            return b""
        update = self._codec.diff(session.tables, self.tables, 0.0)
        if update:
            session.tables = self._codec.patch(session.tables, update)
            session.tables_version += 1
        return update

    def _merge(self, sessions: Sequence[Session], images: Sequence[int]) -> None:
        """The mean of the sessions' codebooks, codeword by codeword: they began alike, and moved a little since."""
        if not sessions or not isinstance(self._codec, CodebookCodec):
            return
        total = sum(images)
        book = np.zeros_like(self.tables["codebook"])
        for session, n in zip(sessions, images, strict=True):
            book += np.float32(n / total) * session.tables["codebook"]
        # As it travels, so that whoever has it has the same.
        self.tables = dict(self.tables, codebook=np.clip(book, -65504, 65504).astype("<f2").astype(np.float32))

"""Rounds on a device: when there is one, what the device says in it, and the weights that it takes from it.

::

    |- batches -|round|- batches -|round| ... |- batches -|round, then a test|     one epoch
"""

import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np

from edgekit.apart import apart
from edgekit.carried import NO_REST, Carried, Sender
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import update_codec
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import PayloadError
from edgekit.line.frame import HEAD_SIZE
from edgekit.line.messages import Update, Weights, Welcome
from edgekit.moves import moved, shared
from edgekit.runtime.front import Front
from edgekit.runtime.place import Place


class Rounds:
    """The rounds of one session. `number` is that of the next."""

    def __init__(self, front: Front, welcome: Welcome, seed: int) -> None:
        self._front = front
        self._plan = welcome
        self._rng = np.random.default_rng((seed, 1))
        self.number = welcome.round
        self.resting = welcome.resting
        #: Whether front halves are averaged; else there is one round, at the end, in which nothing is.
        self.averaged = bool(welcome.rounds or welcome.round_epochs or welcome.round_seconds)
        self._kept = front.statistics if welcome.norms == "local" else ()
        if welcome.front:
            whole = FedAvg().unpack(welcome.front, shapes_of(shared(front.state, front.learned, self._kept)))
            front.set_state(whole)
        #: Whether there is a round after the leg that is under way.
        self.due = False
        #: The weights of the last round that carried them.
        self._base = shared(front.state, front.learned, self._kept)
        self._carried = Carried(self._base, welcome.update_layers)
        codec = apart(update_codec(welcome.update_codec, welcome.update_config), front.statistics)
        self._down = codec
        if welcome.down_codec:
            self._down = apart(update_codec(welcome.down_codec, welcome.down_config), front.statistics)
        self._up = Sender(self._carried, codec) if self.averaged else None
        self._since = time.monotonic()

    def state(self) -> Dict[str, Any]:
        """What `update` and `adopt` change, as a state (`edgekit.statefile`)."""
        left_out = self._up.state if self._up is not None else {}
        return {"number": self.number, "resting": self.resting, "base": self._base, "left_out": left_out,
                "rng": self._rng.bit_generator.state}  # fmt: skip

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`."""
        self.number, self.resting, self._base = state["number"], state["resting"], state["base"]
        if self._up is not None:
            self._up.restore(state["left_out"])
        self._rng.bit_generator.state = state["rng"]

    def legs(
        self, batches: Sequence[np.ndarray], epoch: int, ends: bool, last: bool, place: Optional[Place] = None
    ) -> Iterator[Iterator[np.ndarray]]:
        """The batches of an epoch in legs; `due` says after each whether there is a round.

        `ends`: the front half must be in step after the epoch, because it is tested then. `last`: no epoch follows.
        What is over already, `place` says.
        """
        plan, n = self._plan, len(batches)
        done, over, round_at = (place.done, place.legs, place.round_at) if place is not None else (0, 0, 0)
        if plan.rounds:
            for r in range(over, plan.rounds):
                self.due = True
                yield iter(batches[max(r * n // plan.rounds, done) : (r + 1) * n // plan.rounds])
        elif plan.round_seconds:
            rest = list(batches[done:])
            if not rest and ends and round_at < done:
                # Saved after the last batch, and before the round.
                self.due = True
                yield iter(())
            while rest:
                # Who rests waits for the round, and has its batches still to come: seconds cost it none.
                self.due = self.resting
                yield iter(()) if self.resting else self._until_due(rest, ends)
        elif not over:
            # Where nothing is averaged all devices wait for each other once, so that the last test is of the last back
            # half.
            self.due = ends or epoch % plan.round_epochs == 0 if self.averaged else last
            yield iter(batches[done:])

    def update(self, images: int, left: int, test: bool) -> Update:
        """What the device learned since the last round, from so many images; `left` are still planned.

        It has no bytes where there were none, or where nothing is averaged; before a `test` it has all layers.
        """
        payload, rest = b"", NO_REST
        if self._up is not None and images:
            now = shared(self._front.state, self._front.learned, self._kept)
            names = now if test else self._carried.chosen
            payload, rest, _ = self._up.send({name: now[name] - self._base[name] for name in names}, self._rng)
        return Update(self._plan.session, self.number, images, left, payload, test, rest)

    def adopt(self, weights: Weights) -> None:
        """Takes the average. PayloadError when it does not parse; the front half is then as it was."""
        self.number, self.resting = weights.step, weights.resting
        self._since = time.monotonic()
        new: Optional[Arrays] = None
        if weights.whole:
            new = FedAvg().unpack(weights.update, shapes_of(self._base))
        elif weights.update:
            if self._up is None:
                raise PayloadError("weights message: an average where front halves are not averaged", HEAD_SIZE)
            change = self._carried.unpack(self._down, weights.update, weights.rest, shapes_of(self._base))
            new = moved({name: self._base[name] for name in change}, change, self._front.variances)
        if new is not None:
            self._base = dict(self._base, **new)
        if self.averaged:
            # The other layers stay what this device has made of them.
            names = self._carried.chosen if new is None else new
            self._front.set_state({name: self._base[name] for name in names})

    def _until_due(self, rest: List[np.ndarray], ends: bool) -> Iterator[np.ndarray]:
        """Takes batches out of `rest` until it is time for a round, or none is left."""
        while rest and not self.due:
            yield rest.pop(0)
            self.due = time.monotonic() - self._since >= self._plan.round_seconds
        self.due = self.due or ends

"""Client: one round of local training, from the server's weights to the bytes of an update."""

import itertools
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.errors import UsageError
from edgekit.federate.apart import kind_of
from edgekit.federate.data import Data
from edgekit.federate.network import Network
from edgekit.federate.scaling import Place, train_scales
from edgekit.federate.settings import Local, Scaling
from edgekit.federate.training import augmentation, learn, optimizer
from edgekit.moves import moved
from edgekit.schedule import learning_rate


class Fitted(NamedTuple):
    """What a client came to in one round."""

    #: What goes to the server, and how many images it was learned from.
    payload: bytes
    images: int
    #: What arrives of the update when the payload is decoded.
    arrives: Arrays
    #: Figures: "loss", "train_cpu_s"; with scaling "scaled" (whether new scales are kept), "scaling_cpu_s",
    #: "validation" and "validation_scaled" (accuracies in percent before and with them).
    told: dict[str, float]


class Client:
    """Trains `network` on `data`. Clients of one process may share the network: each round sets all that is learned.

    `number` tells the clients of a run apart; it, the seed and the round decide every draw. With `scaling`, `codec` is
    an `edgekit.apart.Apart`, and the network has scales.
    """

    def __init__(
        self,
        network: Network,
        data: Data,
        codec: UpdateCodec,
        local: Local,
        scaling: Scaling | None,
        number: int,
        seed: int,
    ) -> None:
        local.check()
        if scaling is not None and not local.validation:
            raise UsageError("scaling with a validation of 0: scales are chosen by images that are not trained on")
        self._network, self._local, self._scaling = network, local, scaling
        self._train, self._validation = data.split(local.validation, seed, number)
        self._sender = codec.sender()
        self._seed, self._number = seed, number

    @property
    def images(self) -> int:
        """Images that it trains on."""
        return len(self._train)

    @property
    def state(self) -> Any:
        """What it keeps from round to round, as a state (`edgekit.statefile`): what its codec left out and keeps."""
        return self._sender.state

    def restore(self, state: Any) -> None:
        """Goes on from `state`."""
        self._sender.restore(state)

    def fit(self, weights: Arrays, place: Place) -> Fitted:
        """Trains from `weights`, those of the server as this client has them. Diverged where training does."""
        network = self._network
        rng = np.random.default_rng((self._seed, place.number, self._number))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(rng.integers(1 << 62)))
            began = time.process_time()
            network.set(weights)
            told = {"loss": self._learn(place, rng)}
            now = network.weights
            update = {name: now[name] - weights[name] for name in now if kind_of(name) != "scales"}
            told["train_cpu_s"] = time.process_time() - began
            payload, arrives = self._sender.send(update, rng)
            if self._scaling is not None:
                began = time.process_time()
                network.set({**weights, **moved({name: weights[name] for name in arrives}, arrives, network.variances)})
                change = self._new_scales(self._scaling, place, rng, told)
                told["scaling_cpu_s"] = time.process_time() - began
                part, scales = self._sender.send(change, rng)
                payload, arrives = payload + part, {**arrives, **scales}
        return Fitted(payload, len(self._train), arrives, told)

    def _learn(self, place: Place, rng: np.random.Generator) -> float:
        """The mean loss of the last pass."""
        local = self._local
        moving = self._network.learn_weights()
        steps = optimizer(local.optimizer, moving, local.momentum, local.weight_decay)
        rate = learning_rate(local.schedule, local.rate, place.number / place.rounds, (place.number + 1) / place.rounds)
        for _ in range(local.epochs):
            batches = self._train.shuffled(local.batch, rng, augmentation(local))
            loss = learn(self._network, batches, steps, itertools.repeat(rate), local.precision)
        return loss

    def _new_scales(self, scaling: Scaling, place: Place, rng: np.random.Generator, told: dict[str, float]) -> Arrays:
        """What the scales are to change by, on the network as it is without new ones."""
        old = self._network.scales
        parts = self._train, self._validation
        kept, before, best = train_scales(self._network, *parts, self._local, scaling, place, rng)
        told.update(scaled=bool(kept), validation=before.accuracy, validation_scaled=best.accuracy)
        return {name: kept[name] - scale if kept else np.zeros_like(scale) for name, scale in old.items()}

"""Run: rounds of federated learning in one process, whose messages are the bytes that a line would carry.

::

    each round: sampling -> the clients that take part
      client k: what it lacks <--message-- server;  trains;  payload --> server
      server: average -> new weights -> test -> one line of figures, and a save

A run that is killed goes on from its last save, to the same bits: see `edgekit.saves`.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from edgekit import tensorfile
from edgekit.class_names import said_of
from edgekit.codecs.base import UpdateCodec
from edgekit.data.base import Dataset
from edgekit.data.partition import shares
from edgekit.errors import UsageError
from edgekit.federate.apart import SCALES_CODEC, by_name
from edgekit.federate.client import Client, Fitted
from edgekit.federate.data import Data
from edgekit.federate.network import Network
from edgekit.federate.scaling import Place
from edgekit.federate.server import Policy, Server
from edgekit.federate.settings import Local, parse_scaling
from edgekit.federate.training import evaluate
from edgekit.sampling import sampling
from edgekit.saves import Saves

#: The file of --out that holds the network as it was last, scales folded into its weights.
KEPT = "network.safetensors"


class Plan(NamedTuple):
    """All that a run is told but the network and the images."""

    clients: int = 8
    rounds: int = 90
    #: How the training images are divided, "iid" or "dirichlet:ALPHA".
    partition: str = "iid"
    #: What clients send by, and what they get by: "none" gives them all weights as float32.
    update_codec: str = "quantised"
    down_codec: str = "none"
    #: What the statistics of batch norms travel by, and the changes of scales, both ways. None: statistics go by the
    #: weights' own codec where that suits them (`edgekit.federate.apart.by_name`).
    statistics_codec: str | None = None
    scales_codec: str = SCALES_CODEC
    #: "off", "on" or "on:KEY=VALUE,..." (`edgekit.federate.settings.parse_scaling`).
    scaling: str = "off"
    #: Who takes part in a round: "all", "static:SHARE" or "dynamic:DECAY" (`edgekit.sampling`).
    sampling: str = "all"
    policy: Policy = Policy()
    local: Local = Local()
    #: Rounds from one test to the next; the last round is always tested.
    evaluate_every: int = 1
    #: Decides shares, draws, and the order of images.
    seed: int = 0

    def check(self) -> None:
        """UsageError or UnknownName for what makes no sense."""
        for what, value in (("clients", self.clients), ("rounds", self.rounds), ("tests", self.evaluate_every)):
            if value < 1:
                raise UsageError(f"{what}: {value}, expected at least 1")
        self.policy.check()
        self.local.check()
        sampling(self.sampling)
        parse_scaling(self.scaling)
        self.codecs()

    def codecs(self) -> tuple[UpdateCodec, UpdateCodec | None]:
        """What updates travel by, up and down; None: all weights go down."""
        return self._codec(self.update_codec), None if self.down_codec == "none" else self._codec(self.down_codec)

    def _codec(self, weights: str) -> UpdateCodec:
        return by_name(weights, self.statistics_codec, self.scales_codec)


class Run:
    """`module` learns the images of `dataset` as `plan` says; saves are kept in the folder `out`, if there is one.

    Where `out` has a save, the run goes on from it; UsageError where that is of another run.
    """

    def __init__(
        self, module: torch.nn.Module, dataset: Dataset, plan: Plan, out: str | None = None, device: str = "cpu"
    ) -> None:
        plan.check()
        self._plan, self._classes, self._out = plan, dataset.classes, out
        scaling = parse_scaling(plan.scaling)
        scaled = None if scaling is None else scaling.layers
        self.network = Network(module, plan.local.layers, scaled, plan.local.norms, device)
        weights = self.network.weights
        self._up, down = plan.codecs()
        self._server = Server(weights, self.network.variances, self._up, down, plan.policy, plan.seed)
        parts = shares(dataset.train_labels, plan.clients, plan.partition, plan.seed)
        train = [Data(dataset.train_images[part], dataset.train_labels[part], dataset, device) for part in parts]
        self._clients = [
            Client(self.network, data, self._up, plan.local, scaling, k, plan.seed) for k, data in enumerate(train)
        ]
        self._test = Data(dataset.test_images, dataset.test_labels, dataset, device)
        #: The round whose weights each client has.
        self._has = [0] * plan.clients
        self.lines: list[dict[str, Any]] = []
        begun = self.network.folded()
        images = dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels
        self._told = json.dumps([plan, _checksum(*(begun[name] for name in sorted(begun))), _checksum(*images)])
        self._saves = Saves(out, "federated run")
        if self._saves.labels:
            self._restore(self._saves.read(self._saves.labels[-1]))

    def run(self, on_round: Callable[[Mapping[str, Any]], None] = lambda line: None) -> list[dict[str, Any]]:
        """Makes the rounds that are left; one line for each round of the run, which `on_round` sees as it is made.

        A line: "round" from 1, "clients" that took part, mean "loss", "bytes_up" and "bytes_down" of the round,
        "formula_bytes_up", "cpu_s", and after a test "accuracy" in percent and "test_loss". The rest is what clients
        tell (`edgekit.federate.client.Fitted`): sums of seconds and of kept scales, means of accuracies.
        """
        while self._server.number < self._plan.rounds:
            line = self._round()
            self.lines.append(line)
            if self._out is not None:
                self._saves.write(self._server.number, self._state())
                self._saves.confirm(self._server.number)
            on_round(line)
        self.network.set(self._server.weights)
        if self._out is not None:
            tensorfile.write(os.path.join(self._out, KEPT), self.network.folded(), said_of(self._classes))
        return self.lines

    def _round(self) -> dict[str, Any]:
        began = time.process_time()
        server, number = self._server, self._server.number
        down = up = 0
        fitted: list[Fitted] = []
        for k in self._taking_part(number):
            message = server.message(self._has[k])
            down += len(message)
            self._has[k] = number
            # A client's copy of the weights is what its messages make of the first ones: the server's, which saves
            # keeping all copies; `follow` is held against that by a test.
            fitted.append(self._clients[k].fit(server.weights, Place(number, self._plan.rounds)))
            up += len(fitted[-1].payload)
        server.close([each.payload for each in fitted], [each.images for each in fitted])
        images = sum(each.images for each in fitted)
        line: dict[str, Any] = {
            "round": server.number, "clients": len(fitted), "images": images, "bytes_up": up, "bytes_down": down,
            "loss": sum(each.told["loss"] * each.images for each in fitted) / images,
            "formula_bytes_up": sum(self._up.formula_bits_of(each.arrives) for each in fitted) / 8,
        }  # fmt: skip
        for name in ("scaled", "train_cpu_s", "scaling_cpu_s"):
            if name in fitted[0].told:
                line[name] = sum(each.told[name] for each in fitted)
        for name in ("validation", "validation_scaled"):
            if name in fitted[0].told:
                line[name] = sum(each.told[name] for each in fitted) / len(fitted)
        if server.number % self._plan.evaluate_every == 0 or server.number == self._plan.rounds:
            self.network.set(server.weights)
            tested = evaluate(self.network, self._test, self._plan.local.precision)
            line.update(accuracy=tested.accuracy, test_loss=tested.loss)
        line["cpu_s"] = time.process_time() - began
        return line

    def _taking_part(self, number: int) -> list[int]:
        names = [str(k) for k in range(self._plan.clients)]
        return [int(name) for name in sampling(self._plan.sampling).chosen(names, number, self._plan.seed)]

    def _state(self) -> dict[str, Any]:
        return {
            "told": self._told, "server": self._server.state, "has": self._has, "lines": self.lines,
            "clients": [client.state for client in self._clients],
        }  # fmt: skip

    def _restore(self, state: dict[str, Any]) -> None:
        if state["told"] != self._told:
            raise UsageError(
                f"{self._out} holds another run, of other settings, weights or images: choose another folder, or "
                "remove it to begin anew"
            )
        self._server.restore(state["server"])
        self._has, self.lines = state["has"], state["lines"]
        for client, kept in zip(self._clients, state["clients"], strict=True):
            client.restore(kept)


def _checksum(*arrays: np.ndarray) -> int:
    found = 0
    for array in arrays:
        found = zlib.crc32(array.tobytes(), found)
    return found

"""Filter scaling: the scales of filters trained on a network that is otherwise fixed (FSFL, Algorithm 1, lines 12-19).

::

    weights + what arrives of the update --test--> how good without new scales
      |  a pass over the training images: only scales move --test--> how good with these
      |  ... `Scaling.epochs` times
      v
    the scales of the best test, or none: those before were as good
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.federate.data import Data
from edgekit.federate.network import Network
from edgekit.federate.settings import Local, Scaling
from edgekit.federate.training import Score, augmentation, evaluate, learn, optimizer

#: SGD's, as in the paper.
MOMENTUM = 0.9


class Place(NamedTuple):
    """Round `number`, from 0, of so many."""

    number: int
    rounds: int


def train_scales(
    network: Network,
    train: Data,
    validation: Data,
    local: Local,
    scaling: Scaling,
    place: Place,
    rng: np.random.Generator,
) -> tuple[Arrays, Score, Score]:
    """The scales that were best, {} where none were better than those that `network` has; and the tests of both.

    `network` is left with some scales or other.
    """
    moving = network.learn_scales()
    steps = optimizer(scaling.optimizer, moving, MOMENTUM, 0.0)
    count = math.ceil(scaling.share * train.steps(local.batch))
    rates = learning_rates(scaling, place, count)
    before = best = evaluate(network, validation, local.precision)
    kept: Arrays = {}
    for _ in range(scaling.epochs):
        network.learn_scales()
        batches = train.shuffled(local.batch, rng, augmentation(local))
        learn(network, itertools.islice(batches, count), steps, rates, local.precision)
        tested = evaluate(network, validation, local.precision)
        if tested.better(best):
            best, kept = tested, network.scales
    return kept, before, best


def learning_rates(scaling: Scaling, place: Place, steps: int) -> Iterator[float]:
    """The rate of every step of a round, where a pass has so many `steps`."""
    of_round = scaling.epochs * steps
    for step in range(of_round):
        share = step / of_round
        if scaling.schedule == "linear":
            yield scaling.lr * (1 - (place.number + share) / place.rounds)
        elif scaling.schedule == "cosine":
            yield scaling.lr * (1 + math.cos(math.pi * share)) / 2
        else:
            yield scaling.lr

"""What clients are told: how they train the network, and how its scales."""

import math
from typing import Any, NamedTuple

from edgekit.codecs.registry import parse_settings
from edgekit.data.augment import parse_augmentation
from edgekit.errors import UnknownName, UsageError

#: By optimiser, the learning rate of the weights unless one is asked for.
LEARNING_RATES = {"sgd": 0.05, "adam": 0.001}
#: What becomes of the statistics of batch norms: averaged with the weights, or never moved nor sent.
NORMS = ("average", "frozen")
#: What convolutions and linear layers compute in.
PRECISIONS = ("float32", "bfloat16")
#: How the learning rate of the scales falls, batch by batch: not at all, to 0 over the whole run, or to 0 in every
#: round and up again (a cosine with warm restarts, Loshchilov and Hutter 2017, arXiv:1608.03983).
SCHEDULES = ("none", "linear", "cosine")


class Local(NamedTuple):
    """How a client trains in a round. The optimiser begins anew in each."""

    #: Passes over the client's training images.
    epochs: int = 1
    batch: int = 64
    #: "sgd" or "adam".
    optimizer: str = "sgd"
    #: None: the optimiser's usual rate.
    lr: float | None = None
    #: SGD's.
    momentum: float = 0.9
    weight_decay: float = 0.0
    #: The learning rate over the rounds, "constant" or "cosine" (`edgekit.schedule`).
    schedule: str = "constant"
    #: What is done to training images at random, "flip,crop:4" (`edgekit.data.augment`); None: nothing.
    augment: str | None = None
    #: Share of the client's images that is not trained on: scales are chosen by it.
    validation: float = 0.2
    norms: str = "average"
    precision: str = "float32"
    #: Names of the layers that learn, with all that is below them; none: all.
    layers: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr

    def check(self) -> None:
        """UsageError or UnknownName for what makes no sense."""
        from edgekit.schedule import check_schedule

        _among("optimizer", self.optimizer, LEARNING_RATES)
        _among("policy of norms", self.norms, NORMS)
        _among("precision", self.precision, PRECISIONS)
        check_schedule(self.schedule)
        _at_least("local epochs", self.epochs, 1)
        _at_least("batch", self.batch, 2)
        _at_least("learning rate", self.rate, 0)
        _at_least("weight decay", self.weight_decay, 0)
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum {self.momentum}: expected 0 or more, and below 1")
        if not 0 <= self.validation < 1:
            raise UsageError(f"validation {self.validation}: expected a share of the images, below 1")
        if self.augment is not None:
            parse_augmentation(self.augment)


class Scaling(NamedTuple):
    """How a client trains the scales of filters in a round, after the weights (FSFL: Becking et al. 2022)."""

    #: Passes over the training images; the scales of the best one are kept, if they are better than those before.
    epochs: int = 1
    #: Share of the training images that a pass takes, others each time.
    share: float = 1.0
    #: "adam", or "sgd" with momentum 0.9.
    optimizer: str = "adam"
    lr: float = 1e-3
    schedule: str = "linear"
    #: Names of the layers whose filters or output neurons have scales, with all that is below them; none: all layers.
    layers: tuple[str, ...] = ()

    def check(self) -> None:
        """UsageError or UnknownName for what makes no sense."""
        _among("optimizer of scales", self.optimizer, LEARNING_RATES)
        _among("schedule of scales", self.schedule, SCHEDULES)
        _at_least("epochs of scales", self.epochs, 1)
        _at_least("learning rate of scales", self.lr, 0)
        _at_least("share of a pass over scales", self.share, 0)
        if not 0 < self.share <= 1:
            raise UsageError(f"share {self.share} of a pass over scales: expected more than 0, up to 1")


def parse_scaling(text: str) -> Scaling | None:
    """The scaling that `text` spells: "off", "on", or "on:KEY=VALUE,..." with "+" between layers. UsageError.

    >>> parse_scaling("on:epochs=2,optimizer=sgd,layers=features.0+classifier")
    Scaling(epochs=2, share=1.0, optimizer='sgd', lr=0.001, schedule='linear', layers=('features.0', 'classifier'))
    """
    name, given = parse_settings(text)
    if name == "off" and not given:
        return None
    if name != "on":
        raise UsageError(f"scaling '{text}': expected off, on, or on:KEY=VALUE,..., for example on:epochs=2,lr=0.01")
    for key in given:
        if key not in Scaling._fields:
            raise UnknownName("setting of scaling", key, Scaling._fields, f"it takes {', '.join(Scaling._fields)}")
    settings: dict[str, Any] = {**given}
    if "layers" in given:
        settings["layers"] = tuple(str(given["layers"]).split("+"))
    scaling = Scaling(**settings)
    scaling.check()
    return scaling


def _among(what: str, name: str, known: Any) -> None:
    if name not in known:
        raise UnknownName(what, name, known, f"there are: {', '.join(sorted(known))}")


def _at_least(what: str, value: Any, least: int) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least or (isinstance(least, int) and least and int(value) != value):
        raise UsageError(f"{what} {value}: expected {'a whole number' if least else 'a number'} of {least} or more")

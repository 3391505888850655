"""Passes over images: one that learns, and one that tests."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from edgekit.data.augment import Augmentation, parse_augmentation
from edgekit.errors import Diverged
from edgekit.federate.data import Batch, Data
from edgekit.federate.network import Network
from edgekit.federate.settings import Local


class Score(NamedTuple):
    """What a test came to: images that were right, images in all, and the mean loss."""

    right: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.right / self.images

    def better(self, other: "Score") -> bool:
        """Whether more images are right, or as many at a lower loss."""
        return (self.right, -self.loss) > (other.right, -other.loss)


def optimizer(
    name: str, moving: list[torch.nn.Parameter], momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimiser "sgd" or "adam"; `learn` gives it a rate with every step."""
    if name == "sgd":
        return torch.optim.SGD(moving, 0.0, momentum=momentum, weight_decay=weight_decay)
    return torch.optim.Adam(moving, 0.0, weight_decay=weight_decay)


def learn(
    network: Network, batches: Iterable[Batch], optimizer: torch.optim.Optimizer, rates: Iterable[float], precision: str
) -> float:
    """One step for each of `batches`, at the rate of the same place in `rates`; the mean loss of all images.

    Diverged where that is no number.
    """
    total = torch.zeros((), device=network.device)
    images = 0
    for (batch, labels), rate in zip(batches, rates, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(network, batch, labels, precision)[0]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(labels)
        images += len(labels)
    mean = total.item() / images
    if not math.isfinite(mean):
        raise Diverged(f"the loss of a client became {mean}: training diverged, lower --lr")
    return mean


def evaluate(network: Network, data: Data, precision: str = "float32") -> Score:
    """`network` on all images of `data`, in evaluation mode."""
    network.module.eval()
    right, loss = (torch.zeros((), device=network.device, dtype=kind) for kind in (torch.int64, torch.float64))
    with torch.no_grad():
        for batch, labels in data.in_order():
            mean, scores = _loss(network, batch, labels, precision)
            right += (scores.argmax(1) == labels).sum()
            loss += mean.double() * len(labels)
    return Score(int(right.item()), len(data), loss.item() / len(data))


def augmentation(local: Local) -> Augmentation:
    return parse_augmentation(local.augment) if local.augment else Augmentation()


def _loss(
    network: Network, batch: torch.Tensor, labels: torch.Tensor, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss, f32, and the scores (n,classes) f32."""
    with torch.autocast(network.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        scores = network.module(batch)
    return cross_entropy(scores.float(), labels), scores.float()

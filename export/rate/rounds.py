"""What rounds add to a training image: one is rehearsed on the calibration images, before anything is trained.

::

    calibration images --SGD or Adam on both halves, as many steps as between two rounds--> update of the front half
    update --codec up, codec down--> bytes, over the images of these steps
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from edgekit.apart import apart
from edgekit.bundle import HEAD
from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.export.frames import update_bytes, weights_bytes
from edgekit.export.freeze import frozen_names

#: Most steps of the rehearsal: later ones change little in what an update takes.
MOST_STEPS = 100


class RoundPlan(NamedTuple):
    """The rounds of a run, as far as they decide what a round takes."""

    up: UpdateCodec
    down: UpdateCodec
    #: Images that a device trains on from one round to the next, and the steps that it makes of them.
    images: float
    steps: int
    #: Devices that get the new weights, over those that took part.
    receivers: float
    #: "sgd" or "adam", the learning rate and SGD's momentum.
    optimizer: str
    rate: float
    momentum: float
    #: Whether batch norms' statistics are averaged too.
    statistics: bool
    #: How much the loss of the devices' local head counts, whose weights are averaged then; 0: there is none.
    local_loss: float = 0.0

    @property
    def merged(self) -> float:
        """How often new weights come to a device, for each image that it trains on."""
        return self.receivers / self.images


class RoundBytes(NamedTuple):
    """What rounds take of an image, whole frames; without the codebooks, which come down with the weights."""

    up: float
    down: float


#: What they take where there are none.
NO_ROUNDS = RoundBytes(0.0, 0.0)


class Rehearsal(NamedTuple):
    """What a round is rehearsed with: the halves, images (n,C,H,W) f32, labels (n,), and the images of a step.

    `head` is the devices' local head (`edgekit.export.local_head`), for plans with a local loss.
    """

    front: nn.Module
    back: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    batch: int
    head: nn.Module | None = None


def rehearse(plan: RoundPlan, given: Rehearsal, frozen_norms: bool, seed: int) -> RoundBytes:
    """What a round of `plan` takes of an image; `frozen_norms`: batch norms stay on their running statistics.

    It is the first round, whose update is the largest, and before which nothing was left out.
    """
    update, rng = _learned(plan, given, frozen_norms, seed), np.random.default_rng(seed)
    statistics = [name for name, _ in given.front.named_buffers()]
    codec, other = (apart(each, statistics) for each in (plan.up, plan.down))
    payload = codec.pack(update, rng)
    arrives = codec.unpack(payload, {name: array.shape for name, array in update.items()})
    up, down = update_bytes(payload), weights_bytes(other.pack(arrives, rng))
    return RoundBytes(up / plan.images, down * plan.merged)


def _learned(plan: RoundPlan, given: Rehearsal, frozen_norms: bool, seed: int) -> Arrays:
    """What a device learns from one round to the next, by the names of its front half's weights and statistics, and of
    its local head's weights."""
    front, back = copy.deepcopy(given.front).train(not frozen_norms), copy.deepcopy(given.back).train()
    head = copy.deepcopy(given.head) if plan.local_loss else None
    parts = [part for part in (front, back, head) if part is not None]
    weights = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(weights, plan.rate, momentum=plan.momentum)
    if plan.optimizer == "adam":
        optimizer = torch.optim.Adam(weights, plan.rate)
    names = {name for name, _ in front.named_parameters()}
    if plan.statistics and not frozen_norms:
        names |= {name for name, array in front.named_buffers() if array.is_floating_point()}
    names -= frozen_names(front)
    learning = {name: array for name, array in front.state_dict().items() if name in names}
    if head is not None:
        learning.update({HEAD + name: array for name, array in head.state_dict().items()})
    before = {name: array.clone() for name, array in learning.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(min(plan.steps, MOST_STEPS)):
            some = torch.randperm(len(given.images))[: given.batch]
            optimizer.zero_grad()
            feature = front(given.images[some])
            gradient = _gradient(back, feature, given.labels[some])
            if head is not None:
                local = _gradient(head, feature, given.labels[some])
                gradient += plan.local_loss * gradient.norm() / local.norm().clamp(min=1e-30) * local
            if feature.requires_grad:
                feature.backward(gradient)
            optimizer.step()
    return {name: (array - before[name]).numpy() for name, array in learning.items()}


def _gradient(part: nn.Module, feature: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The gradient at `feature` of the mean cross entropy of `part`; adds those of its weights to theirs."""
    own = feature.detach().requires_grad_(True)
    cross_entropy(part(own), labels).backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None
    return own.grad

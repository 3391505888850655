"""Guards: they keep one wild batch from moving the back half, or a device's front half, much further than ever before.

::

    statistics of batch norm after the forward pass --calm--> no: put back, nobody learns from the step
    gradient of the weights                         --clip_weights--> no longer than its limit
    gradient at each part's feature                 --clip_parts----> no longer than its limit

Limits follow what the run itself does; the fixed numbers were found with healthy runs from fresh weights (digits,
learning rate 0.05, momentum 0.9), none of which a guard touched.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

#: Steps without limits at the start, when everything is still large and changes quickly.
WARM_UP = 10
#: What the recent largest length loses in a step: after 23 steps it is half.
DECAY = 0.97
#: A length may be this many times the recent largest one. Statistics jump more when devices change their codebooks.
GRADIENT, STATISTICS = 4.0, 16.0
#: ... or this share of the largest of the whole run. Where the loss is nearly 0, gradients are tiny and seldom large.
OF_HIGHEST = 0.5
#: By how much one step may raise the recent largest length: what stays large is normal after a few steps.
GROWTH = 2.0

#: See `Guards.calm`.
Agreed = Callable[[list[float]], list[float]]


@dataclass
class Limit:
    """How long a vector that comes with every step may be, from how long it was so far."""

    factor: float
    #: Steps so far, the recent largest length, and the largest of all.
    steps: int = 0
    recent: float = 0.0
    highest: float = 0.0

    @property
    def value(self) -> float:
        """The longest that is let through; infinite while warming up, and as long as all lengths were 0."""
        if self.steps < WARM_UP or self.highest == 0:
            return math.inf
        return max(self.factor * self.recent, OF_HIGHEST * self.highest)

    def see(self, length: float) -> None:
        """Takes note of a step's length as it came, clipped or not."""
        if self.value < math.inf:
            length = min(length, GROWTH * max(self.recent, OF_HIGHEST / self.factor * self.highest))
        self.steps += 1
        self.recent = max(length, DECAY * self.recent)
        self.highest = max(length, self.highest)


@dataclass
class Guards:
    """The limits of one back half, and how often they acted. A deep copy goes on as the original would."""

    weights: Limit = field(default_factory=lambda: Limit(GRADIENT))
    #: For the longest gradient of a step's parts, so that a device with a rare class is not held to its peers' mean.
    parts: Limit = field(default_factory=lambda: Limit(GRADIENT))
    #: By the buffer's name.
    statistics: dict[str, Limit] = field(default_factory=dict)
    #: Steps whose weight gradient was clipped, parts whose feature gradient was, and steps that were undone.
    clipped_steps: int = 0
    clipped_parts: int = 0
    undone: int = 0

    def state(self) -> dict[str, Any]:
        """All of it, as a state (`edgekit.statefile`)."""
        return asdict(self)

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Guards":
        """The guards that gave `state`."""
        limits = {name: Limit(**limit) for name, limit in state["statistics"].items()}
        weights, parts = Limit(**state["weights"]), Limit(**state["parts"])
        return cls(**{**state, "weights": weights, "parts": parts, "statistics": limits})

    def calm(
        self, before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], agreed: Agreed = list
    ) -> bool:
        """Whether no buffer moved far further than it did in other steps; counted as undone otherwise.

        Names to values; integers, such as batch norm's count of steps, are passed over. Here and below `agreed` gives
        the lengths as all processes have them that train one back half, where their sums are rounded differently.
        """
        names = [name for name, buffer in after.items() if buffer.is_floating_point()]
        if not names:
            return True
        lengths = agreed(torch.stack([(after[name] - before[name]).norm() for name in names]).tolist())
        limits = [self.statistics.setdefault(name, Limit(STATISTICS)) for name in names]
        calm = all(length <= limit.value for length, limit in zip(lengths, limits, strict=True))
        for length, limit in zip(lengths, limits, strict=True):
            limit.see(length)
        self.undone += not calm
        return calm

    def clip_weights(self, gradients: Sequence[torch.Tensor], agreed: Agreed = list) -> None:
        """Shortens `gradients`, of all weights, in place where they are together longer than their limit."""
        (length,) = agreed([float(torch.stack([gradient.norm() for gradient in gradients]).norm())])
        limit = self.weights.value
        if length > limit:
            for gradient in gradients:
                gradient.mul_(limit / length)
            self.clipped_steps += 1
        self.weights.see(length)

    def clip_parts(self, gradients: Sequence[torch.Tensor], longest: Callable[[Sequence[float]], float] = max) -> None:
        """Shortens in place those of `gradients` (n,C,h,w) at the parts' features that are longer than their limit.

        Each is that of a mean over n images, so its length goes down as sqrt(n) goes up, and is taken times that.
        `longest` says which length is the largest of the step's.
        """
        lengths = [float(gradient.norm()) * math.sqrt(len(gradient)) for gradient in gradients]
        limit = self.parts.value
        for gradient, length in zip(gradients, lengths, strict=True):
            if length > limit:
                gradient.mul_(limit / length)
                self.clipped_parts += 1
        self.parts.see(longest(lengths))

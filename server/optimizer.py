"""SGD and Adam over the back half's weights, by torch's own functions of one step.

torch's optimizer classes import its compiler when they are made, which takes longer than the rest of a server's start.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

#: What is known of one weight, by name.
Known = dict[str, torch.Tensor]


class Optimizer(ABC):
    """Moves `weights` by their gradients; one without a gradient stays."""

    def __init__(self, weights: Sequence[torch.Tensor], weight_decay: float) -> None:
        self._weights = list(weights)
        self._weight_decay = weight_decay
        #: By the weight's index, from its first step.
        self.known: dict[int, Known] = {}

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step with the learning rate `lr`."""
        moving = [index for index, weight in enumerate(self._weights) if weight.grad is not None]
        weights = [self._weights[index] for index in moving]
        self._move(moving, weights, [weight.grad for weight in weights if weight.grad is not None], lr)

    def restore(self, known: dict[int, Known]) -> None:
        """Goes on from what `known` was."""
        self.known = {
            index: {name: value.clone() if name == "step" else value.to(self._weights[index], copy=True)
                    for name, value in each.items()}
            for index, each in known.items()
        }  # fmt: skip

    @abstractmethod
    def _move(
        self, indices: list[int], weights: list[torch.Tensor], gradients: list[torch.Tensor], lr: float
    ) -> None: ...


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; `known` has "momentum_buffer", where there is momentum."""

    def __init__(self, weights: Sequence[torch.Tensor], weight_decay: float, momentum: float) -> None:
        super().__init__(weights, weight_decay)
        self._momentum = momentum

    def _move(self, indices: list[int], weights: list[torch.Tensor], gradients: list[torch.Tensor], lr: float) -> None:
        # None in a weight's first step: torch puts the gradient there.
        buffers: list[torch.Tensor | None] = [self.known.get(index, {}).get("momentum_buffer") for index in indices]
        sgd(
            weights, gradients, buffers, weight_decay=self._weight_decay, momentum=self._momentum, lr=lr, dampening=0.0,
            nesterov=False, maximize=False,
        )  # fmt: skip
        for index, buffer in zip(indices, buffers, strict=True):
            if buffer is not None:
                self.known[index] = {"momentum_buffer": buffer}


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); `known` has "step", "exp_avg" and "exp_avg_sq"."""

    def _move(self, indices: list[int], weights: list[torch.Tensor], gradients: list[torch.Tensor], lr: float) -> None:
        for index, weight in zip(indices, weights, strict=True):
            if index not in self.known:
                means = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                self.known[index] = {"step": torch.zeros(()), **means}
        steps, first, second = (
            [self.known[index][name] for index in indices] for name in ("step", "exp_avg", "exp_avg_sq")
        )
        adam(
            weights, gradients, first, second, [], steps, amsgrad=False, beta1=0.9, beta2=0.999, lr=lr,
            weight_decay=self._weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip

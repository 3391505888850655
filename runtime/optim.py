"""SGD with momentum and Adam on numpy arrays, by PyTorch's formulas."""

from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import UnknownName


class Optimizer(ABC):
    """Keeps its state per weight name; `step` changes the weights in place."""

    def __init__(self, weight_decay: float) -> None:
        self.weight_decay = np.float32(weight_decay)
        self.state: Dict[str, Any] = {}

    def step(self, weights: Arrays, gradients: Arrays, learning_rate: float) -> None:
        """Makes one step on every weight that `gradients` names."""
        for name, gradient in gradients.items():
            if self.weight_decay:
                gradient = gradient + self.weight_decay * weights[name]
            weights[name] -= self._update(name, gradient, np.float32(learning_rate))

    @abstractmethod
    def _update(self, name: str, gradient: np.ndarray, learning_rate: np.float32) -> np.ndarray: ...


class SGD(Optimizer):
    """SGD with momentum: ``v = momentum * v + g``, the first v is g."""

    def __init__(self, weight_decay: float, momentum: float) -> None:
        super().__init__(weight_decay)
        self.momentum = np.float32(momentum)

    def _update(self, name: str, gradient: np.ndarray, learning_rate: np.float32) -> np.ndarray:
        if name in self.state:
            self.state[name] *= self.momentum
            self.state[name] += gradient
        else:
            self.state[name] = np.array(gradient)
        return np.asarray(learning_rate * self.state[name])


class Adam(Optimizer):
    """Kingma and Ba, 2015, with beta = (0.9, 0.999) and epsilon = 1e-8."""

    def _update(self, name: str, gradient: np.ndarray, learning_rate: np.float32) -> np.ndarray:
        mean, square, t = self.state.get(name, (np.float32(0), np.float32(0), 0))
        mean = np.float32(0.9) * mean + np.float32(0.1) * gradient
        square = np.float32(0.999) * square + np.float32(0.001) * gradient * gradient
        self.state[name] = (mean, square, t + 1)
        root = np.sqrt(square / np.float32(1 - 0.999 ** (t + 1))) + np.float32(1e-8)
        return np.asarray(learning_rate / np.float32(1 - 0.9 ** (t + 1)) * mean / root)


def clip_to_weights(gradients: Arrays, weights: Arrays, ratio: float) -> Arrays:
    """`gradients`, clipped to `ratio` times the norm of their weight: per output channel, for a bias as a whole.

    This is adaptive gradient clipping (Brock et al. 2021, arXiv:2102.06171, equation 3, with its smallest norm of
    1e-3). With it a network without batch norm trains at the learning rates of one that has it.
    """
    clipped = {}
    for name, gradient in gradients.items():
        axes = tuple(range(1, gradient.ndim)) or None
        longest = np.float32(ratio) * np.maximum(_length(weights[name], axes), np.float32(1e-3))
        length = np.maximum(_length(gradient, axes), np.float32(1e-30))
        clipped[name] = gradient * np.minimum(longest / length, np.float32(1))
    return clipped


def _length(array: np.ndarray, axes: Optional[Tuple[int, ...]]) -> np.ndarray:
    return np.asarray(np.sqrt(np.sum(np.square(array), axis=axes, keepdims=True)))


_OPTIMIZERS: Dict[str, Callable[[Dict[str, float]], Optimizer]] = {
    "sgd": lambda c: SGD(c["weight_decay"], c["momentum"]),
    "adam": lambda c: Adam(c["weight_decay"]),
}


def optimizer(name: str, config: Dict[str, float]) -> Optimizer:
    """The optimizer `name` with "weight_decay" and "momentum" of `config`."""
    if name not in _OPTIMIZERS:
        raise UnknownName("optimizer", name, _OPTIMIZERS, "there are: {}".format(", ".join(sorted(_OPTIMIZERS))))
    return _OPTIMIZERS[name](config)

"""A front half trained by PyTorch."""

from collections.abc import Callable
from typing import Any

import torch
from step_task import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Arrays, Task
from torch import nn

LAYERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "conv": lambda at: nn.Conv2d(
        at["in"], at["out"], at["kernel"], at["stride"], at["padding"], groups=at["groups"], bias=False
    ),
    "norm": lambda at: nn.BatchNorm2d(at["channels"]),
    "relu": lambda at: nn.ReLU(),
    "pool": lambda at: nn.MaxPool2d(at["kernel"]),
}


class PyTorchEngine:
    """An nn.Module with autograd and torch.optim.SGD; `channels_last` is the memory format that convolutions prefer."""

    def __init__(self, task: Task, channels_last: bool = False) -> None:
        torch.set_num_threads(1)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._network = nn.Sequential(*(LAYERS[at["kind"]](at) for at in task.layers)).train()
        self._network.to(memory_format=self._format)  # type: ignore[call-overload]
        self._named = {
            f"{at['name']}.{what}": value
            for at, layer in zip(task.layers, self._network, strict=True)
            for what, value in layer.named_parameters()
        }
        with torch.no_grad():
            for name, value in self._named.items():
                value.copy_(torch.from_numpy(task.weights[name]))
        self._image, self._gradient = torch.from_numpy(task.image), torch.from_numpy(task.gradient)
        self._optimizer = torch.optim.SGD(self._named.values(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)

    def step(self) -> None:
        output = self._network(self._image.contiguous(memory_format=self._format))
        # What would be sent.
        output.detach().contiguous().numpy()
        self._optimizer.zero_grad()
        output.backward(self._gradient.contiguous(memory_format=self._format))
        self._optimizer.step()

    def weights(self) -> Arrays:
        return {name: value.detach().numpy() for name, value in self._named.items()}

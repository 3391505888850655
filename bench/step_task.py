"""What all engines of bench/peer_steps.py train: layers and weights of a front half, a batch, a gradient at the cut.

`peer_steps` writes it to a folder, and `step_worker` reads it. Needs numpy alone.
"""

import json
import os
from typing import Any, NamedTuple, Protocol

import numpy as np

#: Momentum and weight decay are those of `edgekit train`; the rate is low, because the gradient never changes.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.001, 0.9, 5e-4
#: Steps after which the weights of all engines are compared.
CHECKED = 3

Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """`image` (n,C,H,W) and `gradient` (n,C,h,w) f32, `weights` f32 by PyTorch's names.

    `layers`, in their order, have a "kind":

    ====  =============================================================================================
    conv  "name", "in" and "out" channels, "kernel", "stride", "padding", "groups": 1 or all; no bias
    norm  "name", "channels"
    relu
    pool  "kernel", which is the stride too; the largest value
    ====  =============================================================================================
    """

    image: np.ndarray
    gradient: np.ndarray
    weights: Arrays
    layers: list[dict[str, Any]]


class Engine(Protocol):
    """Makes training steps of one task with one thread."""

    def step(self) -> None: ...

    def weights(self) -> Arrays:
        """As they are now, by PyTorch's names."""


def write(task: Task, folder: str) -> None:
    np.savez(os.path.join(folder, "batch.npz"), image=task.image, gradient=task.gradient)
    write_weights(task.weights, folder, "given")
    with open(os.path.join(folder, "layers.json"), "w", encoding="utf-8") as file:
        json.dump(task.layers, file)


def read(folder: str) -> Task:
    with open(os.path.join(folder, "layers.json"), encoding="utf-8") as file:
        layers = json.load(file)
    with np.load(os.path.join(folder, "batch.npz")) as batch:
        return Task(batch["image"], batch["gradient"], read_weights(folder, "given"), layers)


def write_weights(weights: Arrays, folder: str, of: str) -> None:
    np.savez(os.path.join(folder, f"weights-{of}.npz"), **weights)  # type: ignore[arg-type]


def read_weights(folder: str, of: str) -> Arrays:
    with np.load(os.path.join(folder, f"weights-{of}.npz")) as arrays:
        return dict(arrays)

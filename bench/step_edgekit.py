"""A front half trained by edgekit's device part, from a bundle."""

import os

import numpy as np
from step_task import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Arrays, Task

from edgekit.bundle import open_bundle
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.optim import optimizer


class EdgekitEngine:
    """`FrontHalf` in ONNX Runtime, as the device process calls it: it gives the codes of the feature, too.

    FOLDER/`codec` is the bundle.
    """

    def __init__(self, task: Task, folder: str, codec: str) -> None:
        self._front = FrontHalf(open_bundle(os.path.join(folder, codec)), "onnxruntime", 1)
        self._names = list(task.weights)
        self._image = task.image
        order = self._front.codec.order(task.gradient.shape[1], self._front.tables)
        self._gradient = np.ascontiguousarray(task.gradient[:, order])
        self._optimizer = optimizer("sgd", {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY})

    def step(self) -> None:
        forward = self._front.forward(self._image)
        self._front.learn(self._front.backward(forward, self._gradient), self._optimizer, LEARNING_RATE)

    def weights(self) -> Arrays:
        return {name: self._front.state[name] for name in self._names}

"""A front half trained by MNN: https://github.com/alibaba/MNN, PyPI `MNN`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from MNN import expr, nn, optim
from step_task import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Arrays, Task


class MnnEngine:
    """Modules of MNN.nn, and MNN.optim's SGD.

    SGD takes a loss, not a gradient at the cut: sum(feature * gradient) is a loss that has it. With `read_feature` the
    feature is read before the step, as a device has to that sends it. MNN then computes it once more for the gradient.
    """

    def __init__(self, task: Task, read_feature: bool = True) -> None:
        # Otherwise every operation is computed at once, and there is no graph to differentiate.
        expr.lazy_eval(True)
        # Backend 0 is the CPU, precision 0 float32.
        expr.set_global_executor_config(0, 0, 1)
        self._task, self._read_feature = task, read_feature
        self._layers: list[Callable[[Any], Any]] = []
        #: Module and position among its parameters, by name.
        self._held: dict[str, tuple[Any, int]] = {}
        network = nn.Module()
        for at in task.layers:
            layer = _layer(at)
            self._layers.append(layer)
            if "name" in at:
                self._load(at["name"], layer)
                setattr(network, at["name"], layer)
        network.train(True)
        self._optimizer = optim.SGD(network, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)

    def step(self) -> None:
        feature = _input(self._task.image)
        for layer in self._layers:
            feature = layer(feature)
        feature = expr.convert(feature, expr.NCHW)
        if self._read_feature:
            feature.read()
        # `expr.reduce_sum` casts what it is given. A cast has no gradient, and the step would do nothing; the function
        # beneath does not cast.
        product = expr.multiply(feature, _input(self._task.gradient))
        if not self._optimizer.step(expr._F.reduce_sum(product, [], False)):
            raise SystemExit("MNN made no step, as it found no gradient: expected that it differentiates every layer")

    def weights(self) -> Arrays:
        return {name: np.array(module.parameters[i].read()) for name, (module, i) in self._held.items()}

    def _load(self, name: str, layer: Any) -> None:
        """Gives `layer` its weights: a convolution's one, or a norm's two, behind which it has its statistics."""
        held = layer.parameters
        names = [each for each in (f"{name}.weight", f"{name}.bias") if each in self._task.weights]
        for i, each in enumerate(names):
            self._held[each] = (layer, i)
            shape = held[i].shape
            held[i] = expr.const(self._task.weights[each].reshape(shape), shape, expr.NCHW)
            held[i].fix_as_trainable()
        if not layer.load_parameters(held):
            raise SystemExit(f"MNN does not take the weights of {name}")


def _layer(at: dict[str, Any]) -> Any:
    if at["kind"] == "conv":
        kernel, stride, padding = ([at[key]] * 2 for key in ("kernel", "stride", "padding"))
        depthwise, bias = at["groups"] > 1, False
        return nn.conv(at["in"], at["out"], kernel, stride, padding, [1, 1], depthwise, bias, expr.Padding_Mode.CAFFE)
    if at["kind"] == "norm":
        # Four dimensions; 0.9 is the share of the old statistics, where PyTorch gives the new one's.
        return nn.batch_norm(at["channels"], 4, 0.9, 1e-5)
    if at["kind"] == "relu":
        return expr.relu
    return lambda x: expr.max_pool(x, [at["kernel"]] * 2, [at["kernel"]] * 2)


def _input(array: np.ndarray) -> Any:
    variable = expr.placeholder(list(array.shape), expr.NCHW)
    variable.write(array)
    return variable

"""Batch norms folded into convolutions, in numpy, as the deployed graph has them.

::

    y = (conv(x) - mean) * s + shift,  s = scale / sqrt(var + epsilon)
      = conv'(x)   with weight' = weight * s per output channel and bias' = (bias - mean) * s + shift

A batch norm with no convolution of its own before it becomes a depthwise 1x1 convolution of weight s.
"""

from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.tensors import TensorSpec


class Fold(NamedTuple):
    """The names of a batch norm and of the convolution that it is folded into; "" when there is none."""

    convolution: str
    norm: str
    epsilon: float

    @property
    def into(self) -> str:
        """The layer whose "weight" and "bias" hold the folded values."""
        return self.convolution or self.norm

    @property
    def buffers(self) -> List[str]:
        """The names of the batch norm's weights and buffers."""
        return [self.norm + "." + part for part in ("weight", "bias", "running_mean", "running_var")]


def fold(state: Arrays, folds: Sequence[Fold]) -> Arrays:
    """The folded weights and biases, f32 by name, from `state`, the weights and buffers of a front half.

    ShapeError when a batch norm and its convolution do not have the same channels.
    """
    folded: Dict[str, Any] = {}
    for each in folds:
        channels = len(state[each.convolution + ".weight"]) if each.convolution else state[each.norm + ".weight"].size
        for name in each.buffers:
            TensorSpec(name, "float32", (channels,)).check(state[name], "batch norm to be folded")
        scale, shift, mean, var = (state[name].astype(np.float64) for name in each.buffers)
        scale = scale / np.sqrt(var + each.epsilon)
        if each.convolution:
            weight = state[each.convolution + ".weight"] * scale.reshape(-1, 1, 1, 1)
            mean = mean - state.get(each.convolution + ".bias", np.zeros(1))
        else:
            weight = scale.reshape(-1, 1, 1, 1)
        folded[each.into + ".weight"] = weight.astype(np.float32)
        folded[each.into + ".bias"] = (shift - mean * scale).astype(np.float32)
    return folded


def fold_from_json(value: Dict[str, Any]) -> Fold:
    """Inverse of `Fold._asdict`; KeyError, TypeError or ValueError on a value that it never gives."""
    convolution, norm, epsilon = value["convolution"], value["norm"], value["epsilon"]
    if not isinstance(convolution, str) or not isinstance(norm, str) or not norm:
        raise ValueError("{!r} names no layers".format(value))
    if type(epsilon) not in (int, float) or not 0 <= epsilon <= 1:
        raise ValueError("epsilon {!r} is not in 0..1".format(epsilon))
    return Fold(convolution, norm, float(epsilon))

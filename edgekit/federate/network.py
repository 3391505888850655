"""A network's weights by name, as they travel, and a trainable scale for each filter or output neuron, if asked for.

::

    NAME          (M, ...) f32   the weight, as it is learned; the layer computes with weight * scale
    NAME:scale    (M,) f32       1 at first, which changes nothing
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekit.codecs.base import Arrays
from edgekit.errors import ShapeError, UnknownName, UsageError
from edgekit.federate.apart import SCALE, STATISTICS
from edgekit.tensors import TensorSpec, check_all

_WEIGHT = ".parametrizations.weight.original"
_OWN = ".parametrizations.weight.0.scale"
_Norm = nn.modules.batchnorm._BatchNorm


class _Scaled(nn.Module):
    """The weight that a layer computes with."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(len(weight), device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.scale.view(-1, *[1] * (weight.dim() - 1))


class Network:
    """`module` on the torch device `device`, where the layers `learning` learn (none named: all).

    `scaled`: the layers whose filters have scales; an empty one names all, None gives none. `module` is changed in
    place. `norms` as in `edgekit.federate.settings.Local`.
    """

    def __init__(
        self,
        module: nn.Module,
        learning: Iterable[str] = (),
        scaled: Iterable[str] | None = None,
        norms: str = "average",
        device: str = "cpu",
    ) -> None:
        module.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module, self.device = module, torch.device(device)
        layers = dict(module.named_modules())
        learning = list(learning)
        chosen = _below(layers, learning)
        if scaled is not None:
            scaled = list(scaled)
            idle = [name for name in scaled if not _below(layers, [name]) & chosen]
            if idle:
                raise UsageError(
                    f"scales for {', '.join(idle)}: not among the layers that learn, {', '.join(learning)}: let them "
                    "learn too, or name others"
                )
            _equip(layers, _below(layers, scaled) & chosen)
        norms_of = {name: layer for name, layer in layers.items() if isinstance(layer, _Norm)}
        fixed = [name for name in norms_of if norms == "frozen" or name not in chosen]
        self._norms = list(norms_of.values())
        self._fixed_norms = [norms_of[name] for name in fixed]
        own = {_told(key): tensor for key, tensor in module.state_dict().items() if tensor.is_floating_point()}
        kept = {f"{name}.{key}" for name in fixed for key in STATISTICS}
        #: All that travels, by its name: parameters, scales and float buffers.
        self._tensors = {name: own[name] for name in own if _layer_of(name) in chosen and name not in kept}
        moving = {_told(key): p for key, p in module.named_parameters() if _layer_of(_told(key)) in chosen}
        self._scales = {name: p for name, p in moving.items() if name.endswith(SCALE)}
        self._weights = [p for name, p in moving.items() if name not in self._scales]
        #: Names of the running variances among what travels.
        self.variances = tuple(name for name in self._tensors if name.endswith(".running_var"))

    @property
    def weights(self) -> Arrays:
        """Copies of all that travels, f32, scales among them."""
        return {name: _array(tensor) for name, tensor in self._tensors.items()}

    @property
    def scales(self) -> Arrays:
        """Copies of the scales (M,) f32."""
        return {name: _array(scale) for name, scale in self._scales.items()}

    def set(self, arrays: Arrays) -> None:
        """Takes new values of what `arrays` names. ShapeError where that is no weight here, or another shape."""
        unknown = sorted(set(arrays) - set(self._tensors))
        if unknown:
            raise ShapeError(f"no weight here is called {unknown[0]}: expected weights of this network")
        specs = [TensorSpec(name, "float32", tuple(self._tensors[name].shape)) for name in arrays]
        check_all(specs, arrays, "new weights")
        with torch.no_grad():
            for name, array in arrays.items():
                self._tensors[name].copy_(torch.tensor(array))
            for norm in self._norms:
                # Of another client's batches.
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.zero_()

    def learn_weights(self) -> list[nn.Parameter]:
        """Makes ready to train the weights, scales fixed; gives what an optimiser is to move."""
        return self._learn(self._weights, self._fixed_norms)

    def learn_scales(self) -> list[nn.Parameter]:
        """The same for the scales, all else fixed: weights, and the statistics of all batch norms."""
        return self._learn(list(self._scales.values()), self._norms)

    def folded(self) -> Arrays:
        """Copies of all parameters and buffers as the network without scales would have them."""
        with torch.no_grad():
            arrays = {key: _array(tensor) for key, tensor in self.module.state_dict().items() if _told(key) == key}
            for name, layer in self.module.named_modules():
                if parametrize.is_parametrized(layer, "weight"):
                    weight = layer.weight
                    assert isinstance(weight, torch.Tensor)
                    arrays[f"{name}.weight" if name else "weight"] = _array(weight)
        return arrays

    def _learn(self, moving: list[nn.Parameter], fixed: Iterable[nn.Module]) -> list[nn.Parameter]:
        self.module.train()
        for layer in fixed:
            layer.eval()
        self.module.requires_grad_(False)
        for parameter in moving:
            parameter.requires_grad_(True)
        return moving


def _below(layers: dict[str, nn.Module], names: Iterable[str]) -> set[str]:
    """The layers of `names` and below them; all where there are none."""
    found = set()
    for name in names:
        below = {each for each in layers if f"{each}.".startswith(f"{name}.")}
        if not below:
            raise UnknownName("layer", name, layers, "`edgekit cuts MODEL` lists most layers of a network")
        found |= below
    return found or set(layers)


def _equip(layers: dict[str, nn.Module], chosen: set[str]) -> None:
    """Gives every convolution and linear layer of `chosen` scales of 1."""
    scaled = {
        n: layer
        for n, layer in layers.items()
        if n in chosen and isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)
    }
    if not scaled:
        raise UsageError(f"scales for {', '.join(sorted(chosen)[:3])}: no convolution or linear layer is there")
    for name, layer in scaled.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise UsageError(f"scales for {name}: its weight is computed from others already; leave the layer out")
        parametrize.register_parametrization(layer, "weight", _Scaled(layer.weight))


def _told(key: str) -> str:
    """The name under which the tensor `key` of a module travels."""
    dotted = "." + key
    if dotted.endswith(_OWN):
        return (dotted[: -len(_OWN)] + ".weight" + SCALE)[1:]
    return (dotted[: -len(_WEIGHT)] + ".weight")[1:] if dotted.endswith(_WEIGHT) else key


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A copy, row-major."""
    return np.array(tensor.detach().cpu().numpy(), order="C", copy=True)

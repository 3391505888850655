"""The networks by name, imported on demand, and the layer that each is cut at unless the user says otherwise."""

import importlib
from typing import TYPE_CHECKING, NamedTuple

from edgekit.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from torch import nn

#: Networks for images with fewer pixels a side take the form usual for CIFAR: less stride at the start, a small head.
SMALL = 64
#: Five halvings leave one position.
SMALLEST = 16


class Model(NamedTuple):
    """Where the factory is, ``module:function``, and the default cut, a layer name."""

    factory: str
    cut: str


MODELS = {
    "vgg11": Model("edgekit.export.models.vgg:vgg11", "features.7"),
    "mobilenet_v1": Model("edgekit.export.models.mobilenet:mobilenet_v1", "blocks.3.depthwise"),
    "resnet18": Model("edgekit.export.models.resnet:resnet18", "layer2.1"),
}


def build(name: str, input_shape: tuple[int, int, int], classes: int, seed: int) -> "nn.Module":
    """Network `name` for images of `input_shape` (C,H,W), in training mode, with weights that `seed` decides.

    The random state of torch is left as it was.
    """
    channels, *sides = input_shape
    model = _model(name)
    if min(sides) < SMALLEST:
        raise UsageError(
            f"{name} for images of {sides[0]}x{sides[1]} pixels: expected at least {SMALLEST} a side, scale them up"
        )
    if channels < 1 or classes < 2:
        raise UsageError(f"{name} for {channels} channels and {classes} classes: expected at least 1 and 2")
    import torch

    from edgekit.export.models.initialise import initialise

    module, function = model.factory.split(":")
    factory = getattr(importlib.import_module(module), function)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        network = factory(channels, classes, small=min(sides) < SMALL)
        initialise(network)
    assert isinstance(network, torch.nn.Module)
    return network


def default_cut(name: str) -> str:
    """The layer that `name` is cut at by default."""
    return _model(name).cut


def _model(name: str) -> Model:
    if name not in MODELS:
        raise UnknownName("model", name, MODELS, "`edgekit models` lists them")
    return MODELS[name]

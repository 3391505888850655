"""Networks by name, built in or a user's own, imported on demand; and where each built-in one is cut by default."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgekit.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from torch import nn

#: Networks for images with fewer pixels a side take the form usual for CIFAR: less stride at the start, a small head.
SMALL = 64
#: Five halvings leave one position.
SMALLEST = 16
#: Labels travel as 16 bits.
MOST_CLASSES = 1 << 16


class Model(NamedTuple):
    """Where the factory is, ``module:function``, and the default cut, a layer name."""

    factory: str
    cut: str


MODELS = {
    "alexnet": Model("edgekit.export.models.alexnet:alexnet", "features.5"),
    "vgg11": Model("edgekit.export.models.vgg:vgg11", "features.7"),
    "vgg16": Model("edgekit.export.models.vgg:vgg16", "features.13"),
    "vgg11_thin": Model("edgekit.export.models.vgg:vgg11_thin", "features.7"),
    "resnet18": Model("edgekit.export.models.resnet:resnet18", "layer2.1"),
    "resnet34": Model("edgekit.export.models.resnet:resnet34", "layer2.1"),
    "shufflenet_v2": Model("edgekit.export.models.shufflenet_v2:shufflenet_v2", "stage3.0"),
    "shufflenet_v2_half": Model("edgekit.export.models.shufflenet_v2:shufflenet_v2_half", "stage3.0"),
    "mobilenet_v1": Model("edgekit.export.models.mobilenet_v1:mobilenet_v1", "blocks.3.depthwise"),
    "mobilenet_v2": Model("edgekit.export.models.mobilenet_v2:mobilenet_v2", "features.7"),
    "allcnn": Model("edgekit.export.models.allcnn:allcnn", "conv3"),
}


def build(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int | None,
    seed: int,
    weights: str | None = None,
    class_names: Sequence[str] = (),
) -> "nn.Module":
    """Network `name` for images of `input_shape` (C,H,W), in training mode.

    `name` is built in or a user's own, "package.module:factory". Its weights are those of the safetensors file
    `weights`, else what `seed` decides; the random state of torch is left as it was. `classes` None: as many as a
    user's network has, 10 for one that is built in. Weights that say the names of their classes must have
    `class_names`, if these are given.
    """
    channels = input_shape[0]
    if channels < 1 or (classes is not None and not 2 <= classes <= MOST_CLASSES):
        raise UsageError(
            f"{name} for {channels} channels and {classes} classes: expected at least 1, and 2 to {MOST_CLASSES}"
        )
    import torch

    from edgekit.export.models.weights import load_weights

    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        network = (_own if ":" in name else _built_in)(name, input_shape, classes)
    if weights is not None:
        load_weights(network, weights, class_names)
    return network


def default_cut(name: str) -> str | None:
    """The layer that `name` is cut at by default; None for a user's own network, "package.module:factory"."""
    return None if ":" in name else _model(name).cut


def _built_in(name: str, input_shape: tuple[int, int, int], classes: int | None) -> "nn.Module":
    model = _model(name)
    channels, *sides = input_shape
    if min(sides) < SMALLEST:
        raise UsageError(
            f"{name} for images of {sides[0]}x{sides[1]} pixels: expected at least {SMALLEST} a side, scale them up"
        )
    from torch import nn

    from edgekit.export.models.initialise import initialise

    module, function = model.factory.split(":")
    network = getattr(importlib.import_module(module), function)(channels, classes or 10, small=min(sides) < SMALL)
    assert isinstance(network, nn.Module)
    initialise(network)
    return network


def _own(reference: str, input_shape: tuple[int, int, int], classes: int | None) -> "nn.Module":
    from edgekit.export.models.own import classes_of, load_model

    network = load_model(reference, {})
    scores = classes_of(network, input_shape)
    if classes is not None and scores != classes:
        raise UsageError(
            f"{reference} gives {scores} scores, {classes} classes were asked for: expected as many; make its last "
            "layer that wide, or use a dataset that fits"
        )
    return network.train()


def _model(name: str) -> Model:
    if name not in MODELS:
        known = "`edgekit models` lists them; your own network is package.module:factory"
        raise UnknownName("model", name, MODELS, known)
    return MODELS[name]

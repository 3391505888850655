"""The built-in models, and the layers of one model, as `edgekit models` shows them."""

from typing import NamedTuple

import torch

from edgekit.export.models.registry import MODELS, build, default_cut
from edgekit.export.split import cut_points


class Row(NamedTuple):
    """A built-in model, the layer it is cut at by default, and its number of parameters."""

    name: str
    cut: str
    parameters: int


def listing(input_shape: tuple[int, int, int], classes: int | None) -> list[Row]:
    """The built-in models for images of `input_shape` (C,H,W)."""
    rows = []
    for name, model in MODELS.items():
        # On the meta device tensors have shapes and no values: no memory, no time.
        with torch.device("meta"):
            network = build(name, input_shape, classes, seed=0)
        rows.append(Row(name, model.cut, sum(parameter.numel() for parameter in network.parameters())))
    return rows


def layers(name: str, input_shape: tuple[int, int, int], classes: int | None) -> tuple[str | None, list[str]]:
    """The default cut of model `name`, if it has one, and all its cut points in order of computation."""
    return default_cut(name), cut_points(build(name, input_shape, classes, seed=0))

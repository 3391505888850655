"""A front half of which only the last layers learn: which those are, what the graphs become, and what a device does."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.export.build import build_bundle
from edgekit.export.freeze import FrozenBatchNorm2d, freeze_all_but, frozen_names
from edgekit.export.graphs import front_graphs
from edgekit.export.models.registry import build
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.export.split import split
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.optim import optimizer

CUT = "blocks.1"


def network() -> nn.Module:
    """MobileNet-V1, with statistics of its own."""
    model = build("mobilenet_v1", (1, 16, 16), 10, 0)
    with torch.no_grad():
        model.train()(torch.randn(32, 1, 16, 16))
    return model


def front_of(model: nn.Module, cut: str, last: int) -> nn.Module:
    front, _ = split(copy.deepcopy(model), cut)
    freeze_all_but(front, last)
    return front


def layers(names: set[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def test_the_last_layers_learn_with_their_batch_norms() -> None:
    whole, _ = split(network(), CUT)
    everything = {name for name, _ in whole.named_parameters()}
    front = front_of(network(), CUT, 2)
    learning = {name for name, weight in front.named_parameters() if weight.requires_grad}
    assert learning | (frozen_names(front) & everything) == everything
    kinds = [type(front.get_submodule(layer)) for layer in sorted(layers(learning))]
    assert sorted(kind.__name__ for kind in kinds) == ["BatchNorm2d", "BatchNorm2d", "Conv2d", "Conv2d"]
    frozen = [module for module in front.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(frozen) == 3


def test_frozen_statistics_stay_in_training_mode() -> None:
    front = front_of(network(), CUT, 1).train()
    before = copy.deepcopy(front.state_dict())
    front(torch.randn(8, 1, 16, 16))
    moved = {name for name, value in front.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not moved & frozen_names(front)


def test_a_layer_computed_twice_counts_where_it_is_computed_last() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
            self.shared = nn.Conv2d(4, 4, 1)
            self.scale = nn.Parameter(torch.ones(1))
            self.end = nn.Identity()
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.end(self.shared(self.second(self.shared(self.first(x)))) * self.scale)
            logits: torch.Tensor = self.head(y.mean((2, 3)))
            return logits

    front = front_of(Twice(), "end", 1)
    assert {name for name, weight in front.named_parameters() if weight.requires_grad} == {
        "shared.weight", "shared.bias", "scale",
    }  # fmt: skip


class Branches(nn.Module):
    """Two convolutions in turn, then their norms; and a weight that forward uses by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.left_norm, self.right_norm = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.weight = nn.Parameter(torch.ones(4, 4, 1, 1))
        self.end = nn.Identity()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.left(x), self.right(x)
        y = self.left_norm(left) + self.right_norm(right)
        logits: torch.Tensor = self.head(self.end(nn.functional.conv2d(y, self.weight)).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("last", "expected"),
    [(1, {"weight"}), (2, {"weight", "right.weight", "right.bias", "right_norm.weight", "right_norm.bias"})],
)
def test_a_norm_is_of_the_layer_that_it_follows(last: int, expected: set[str]) -> None:
    front = front_of(Branches(), "end", last)
    assert {name for name, weight in front.named_parameters() if weight.requires_grad} == expected


@pytest.mark.parametrize("last", [0, 6])
def test_more_layers_than_there_are_is_refused_with_their_names(last: int) -> None:
    with pytest.raises(
        UsageError, match=rf"{last} layers that learn: expected 1 to 5, the front half has stem\.conv, "
    ):
        front_of(network(), CUT, last)


@pytest.mark.parametrize(("norm", "backend"), [("batch", "onnxruntime"), ("frozen", "reference")])
def test_a_device_learns_what_pytorch_learns(tmp_path: object, digits: Dataset, norm: str, backend: str) -> None:
    """Gradients are compared with autograd's by the export itself; here, what is left out and what stays."""
    bundle = build_bundle(
        f"{tmp_path}/bundle",
        Network(network(), "own", CUT),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {})),
        BoardSettings("cpu", norm, 8, train_layers=2),
    )
    learned = [name for name in bundle.learned if not name.endswith(("running_mean", "running_var"))]
    assert len(learned) == (6 if norm == "batch" else 4)
    held = {spec.name for graph in ("front_train", "front_grad") for spec in bundle.graphs[graph].held}
    weights = {name for name in held if not name.startswith("codebook")}
    assert weights <= set(bundle.learned)
    front = FrontHalf(bundle, backend, 1)
    before = {name: value.copy() for name, value in front.state.items()}
    rng = np.random.default_rng(0)
    update = optimizer("sgd", {"momentum": 0.9, "weight_decay": 0.0})
    image = rng.standard_normal((8, 1, 16, 16), dtype=np.float32)
    codes = front.encode(image)["codes"].copy()
    for _ in range(3):
        forward = front.forward(image)
        gradient = rng.standard_normal(forward.feature.shape, dtype=np.float32)
        front.learn(front.backward(forward, gradient), update, 0.5)
    moved = {name for name, value in front.state.items() if not np.array_equal(value, before[name])}
    assert moved == set(bundle.learned)
    # The deployed graph follows, frozen layers and all.
    assert (front.encode(image)["codes"] != codes).any()
    front.close()


def test_fewer_layers_save_activations() -> None:
    codec = feature_codec("raw", {})

    def saved(last: int) -> int:
        specs = front_graphs(front_of(network(), CUT, last), (1, 16, 16), codec, {}).specs
        return sum(int(np.prod(spec.shape[1:])) for spec in specs["front_grad"].inputs)

    assert saved(1) < saved(2) < saved(5)

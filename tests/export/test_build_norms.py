"""Which norm policy a bundle gets, and what a device deploys after it has learned."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.export.build import build_bundle
from edgekit.export.fold import fold_norms
from edgekit.export.models.initialise import initialise
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.export.split import split
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.optim import optimizer

CUT = "depthwise.1"


def export(path: object, digits: Dataset, network: nn.Module, device: str, norm: str | None = None) -> Bundle:
    return build_bundle(
        f"{path}/bundle",
        Network(network, "own", CUT),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {})),
        BoardSettings(device, norm, 8),
    )


class Unit(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, channels: int, filters: int, side: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, side, padding=side // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.relu(self.bn(self.conv(x)))
        return y


class Depthwise(nn.Module):
    """MobileNet's first two blocks, and a small back half: 16x16 grey image -> 64x8x8 at CUT -> 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Unit(1, 32, 3), nn.MaxPool2d(2))
        self.depthwise = nn.ModuleList([Unit(32, 32, 3, 32), Unit(64, 64, 3, 64)])
        self.pointwise = Unit(32, 64, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise[1](self.pointwise(self.depthwise[0](self.stem(x))))
        z: torch.Tensor = self.head(y.mean((2, 3)))
        return z


def network(trained: bool) -> nn.Module:
    torch.manual_seed(0)
    model = Depthwise()
    initialise(model)
    if trained:
        with torch.no_grad():
            model.train()(torch.randn(32, 1, 16, 16))
    return model


@pytest.mark.parametrize(
    ("device", "trained", "expected"),
    [("cpu", False, "batch"), ("cpu", True, "batch"), ("jetson-nano", False, "batch"), ("jetson-nano", True, "frozen")],
)
def test_default(tmp_path: object, digits: Dataset, device: str, trained: bool, expected: str) -> None:
    assert export(tmp_path, digits, network(trained), device).norm == expected


def test_unknown_policy(tmp_path: object, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="norm policy 'folded': expected one of batch, frozen"):
        export(tmp_path, digits, network(True), "cpu", "folded")


@pytest.mark.parametrize("device", ["cpu", "jetson-nano", "atlas-200-dk"])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_what_is_deployed_after_learning_is_what_pytorch_computes(
    tmp_path: object, digits: Dataset, device: str, norm: str
) -> None:
    bundle = export(tmp_path, digits, network(True), device, norm)
    front = FrontHalf(bundle, "onnxruntime", 1)
    rng = np.random.default_rng(0)
    update = optimizer("sgd", {"momentum": 0.9, "weight_decay": 0.0})
    image = rng.standard_normal((8, 1, 16, 16), dtype=np.float32)
    before = front.encode(image)["codes"]
    for _ in range(5):
        forward = front.forward(rng.standard_normal((8, 1, 16, 16), dtype=np.float32))
        gradient = rng.standard_normal(forward.feature.shape, dtype=np.float32)
        front.learn(front.backward(forward, gradient), update, 0.05)
    twin = split(copy.deepcopy(network(True)), CUT)[0]
    if norm == "frozen":
        twin, _ = fold_norms(twin)
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in front.state.items()})
    with torch.no_grad():
        feature = twin.eval()(torch.from_numpy(image)).numpy()
    order = bundle.codec.order(feature.shape[1], front.tables)
    codes = bundle.codec.quantize(np.ascontiguousarray(feature[:, order]), front.tables)["codes"]
    assert (front.encode(image)["codes"] == codes).mean() >= 0.999
    assert (before != codes).any()
    # A smaller batch is filled up, and cut again.
    np.testing.assert_array_equal(front.encode(image[:3])["codes"], front.encode(image)["codes"][:3])

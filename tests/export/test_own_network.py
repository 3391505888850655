"""A network that is not in our list, as a user writes it: split, exported for boards, and differentiated."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.device_profiles.registry import profile
from edgekit.errors import ExportError
from edgekit.export.build import NORMS
from edgekit.export.fold import fold_norms, settle_norms, state_of
from edgekit.export.graphs import front_graphs
from edgekit.export.parity.golden import run_graph
from edgekit.export.split import cut_points, split

SHAPE = (3, 24, 24)
CODEC = feature_codec("sgq", {"groups": 4, "bits": 4})


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole image says, as in Hu et al., 2018."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // 4)
        self.expand = nn.Linear(channels // 4, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        y = torch.sigmoid(self.expand(F.silu(self.reduce(y))))
        y = x * y.view(b, c, 1, 1)
        return y


class ConvGate(nn.Module):
    """The same with 1x1 convolutions and a mean, as in EfficientNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels // 4, 1)
        self.act = nn.SiLU(inplace=True)
        self.conv_expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate: torch.Tensor = self.conv_expand(self.act(self.conv_reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class Inverted(nn.Module):
    """Expansion, a depthwise convolution, a gate, projection; added to the input where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, gate: type[nn.Module]) -> None:
        super().__init__()
        inner = 2 * inputs
        self.expand = nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.SiLU())
        self.depthwise = nn.Conv2d(inner, inner, 5, stride, 2, groups=inner, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.gate = gate(inner)
        self.project = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.gate(F.silu(self.norm(self.depthwise(self.expand(x))))))
        return x + y if self.residual else y


class Fork(nn.Module):
    """A 1x1, a 3x3 and a pooled branch side by side, and a batch norm that no convolution precedes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(inputs, outputs // 4, 1)
        self.wide = nn.Conv2d(inputs, outputs // 2, 3, padding=1)
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(inputs, outputs // 4, 1))
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.norm(torch.cat([self.point(x), self.wide(x), self.pooled(x)], dim=1)))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.first = Inverted(16, 16, 1, SqueezeExcite)
        self.down = Inverted(16, 24, 2, ConvGate)
        self.second = Inverted(24, 24, 1, ConvGate)
        self.fork = Fork(24, 32)
        self.last = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.first(self.stem(x)))
        x = self.last(self.fork(self.second(x)))
        y: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return y


@pytest.fixture
def own() -> Own:
    """With batch norms that have seen something, and whose gradients do not vanish by symmetry."""
    torch.manual_seed(0)
    network = Own()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    settle_norms(network, torch.randn(64, *SHAPE))
    return network


def test_split(own: Own) -> None:
    assert {"stem", "stem.0", "first", "down.expand", "down", "second", "fork", "last"} <= set(cut_points(own))
    image = torch.randn(4, *SHAPE)
    for cut in ("first", "fork"):
        front, back = split(own, cut)
        torch.testing.assert_close(back.eval()(front.eval()(image)), own.eval()(image))
    with pytest.raises(ExportError, match=r"cannot cut at 'second\.depthwise': 2 tensors pass there"):
        split(own, "second.depthwise")


class InPlace(nn.Module):
    """Statements whose result nobody takes, but which change what comes after."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(8, 8, 1)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.how == "module":
            self.relu(x)
        elif self.how == "function":
            F.relu(x, inplace=True)
        else:
            x.mul_(2)
        y: torch.Tensor = self.last(x)
        return y.mean((2, 3))


@pytest.mark.parametrize("how", ["module", "function", "method"])
@pytest.mark.parametrize("cut", ["conv", "last"])
def test_statements_in_place_are_kept_or_refused(how: str, cut: str) -> None:
    network = InPlace(how)
    image = torch.randn(2, *SHAPE)
    try:
        front, back = split(network, cut)
    except ExportError as error:
        assert cut == "last" and "2 tensors pass there" in str(error)
    else:
        torch.testing.assert_close(back(front(image)), network(image))


@pytest.mark.parametrize("device", ["cpu", "jetson-nano", "atlas-200-dk"])
@pytest.mark.parametrize("cut", ["first", "fork"])
def test_deployed_codes(own: Own, device: str, cut: str) -> None:
    """The rules of the board are checked while the graph is built."""
    front = split(own, cut)[0].eval()
    image = torch.randn(8, *SHAPE)
    with torch.no_grad():
        feature = front(image).numpy()
    tables = CODEC.calibrate(feature, 0)
    board = profile(device)
    graphs = front_graphs(front, SHAPE, CODEC, tables, device=board, norm=board.target.norm, batch_size=8)
    feeds = {"image": image.numpy()}
    codes = run_graph(graphs.models["front.onnx"], graphs.specs["front"], CODEC.table_feeds(tables), feeds)["codes"]
    expected = CODEC.quantize(feature[:, CODEC.order(feature.shape[1], tables)], tables)["codes"]
    assert codes.shape == expected.shape and len(np.unique(codes)) == 16
    assert (codes == expected).mean() >= 0.999


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("cut", ["first", "fork"])
def test_gradients_are_those_of_autograd(own: Own, norm: str, cut: str) -> None:
    """All weights of the front half, in float32, against PyTorch in float64."""
    front = split(own, cut)[0]
    twin = (fold_norms(front)[0] if norm == "frozen" else copy.deepcopy(front)).train().double()
    image = torch.randn(8, *SHAPE)
    feature = twin(image.double())
    gradient = torch.randn_like(feature)
    feature.backward(gradient)
    truth = {name: weight.grad.numpy() for name, weight in twin.named_parameters() if weight.grad is not None}
    assert len(truth) == len(list(twin.parameters()))

    tables = CODEC.calibrate(feature.detach().float().numpy(), 0)
    order = CODEC.order(feature.shape[1], tables)
    graphs = front_graphs(front, SHAPE, CODEC, tables, norm=norm)
    held: Arrays = {**graphs.state, **CODEC.table_feeds(tables)}
    assert held.keys() >= (state_of(twin).keys() if norm == "frozen" else truth.keys())
    feeds = {"image": image.numpy()}
    outputs = run_graph(graphs.models["front_train.onnx"], graphs.specs["front_train"], held, feeds)
    np.testing.assert_allclose(outputs[graphs.feature], feature.detach().numpy()[:, order], atol=1e-4)
    feeds |= outputs | {"gradient": gradient.float().numpy()[:, order]}
    given = run_graph(graphs.models["front_grad.onnx"], graphs.specs["front_grad"], held, feeds)
    assert given.keys() == {f"gradient.{name}" for name in truth}
    norms = {name: float(np.linalg.norm(value)) for name, value in truth.items()}
    # A bias before batch norm has no gradient: nothing to be relative to but the others.
    floor = 1e-10 * max(norms.values())
    errors = {
        name: float(np.linalg.norm(given[f"gradient.{name}"] - value))
        / (norms[name] if norms[name] > floor else max(norms.values()))
        for name, value in truth.items()
    }
    assert max(errors.values()) <= 1e-4, {name: error for name, error in errors.items() if error > 1e-4}

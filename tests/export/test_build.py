"""What cannot be exported is refused with the layer and the operator named."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import ExportError, UnknownName, UsageError
from edgekit.export.build import build_bundle
from edgekit.export.gradient import differentiate
from edgekit.export.graph import Graph
from edgekit.export.graphs import front_graphs
from edgekit.export.named import export_named
from edgekit.export.settings import BoardSettings, Calibration, CalibrationImages, Coding, NamedNetwork, Network
from edgekit.tensors import TensorSpec


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LocalResponseNorm(2), r"layer '1'"),
        (nn.BatchNorm2d(4, affine=False), r"layer '1': batch norm needs affine=True"),
        (nn.MaxPool2d(3, 2, dilation=2), r"layer '1': .*dilation"),
    ],
)
def test_layer_without_a_rule(layer: nn.Module, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        front_graphs(nn.Sequential(nn.Conv2d(3, 4, 1), layer), (3, 8, 8), feature_codec("raw", {}), {})


def test_operator_without_a_gradient() -> None:
    graph = Graph()
    x = graph.input(TensorSpec("x", "float32", (-1, 2)))
    w = graph.weight("w", np.ones(2, dtype=np.float32))
    graph.in_layer("strange")
    y = graph.op("Sinh", [graph.op("Add", [x, w], (-1, 2))], (-1, 2))
    with pytest.raises(ExportError, match=r"layer 'strange': operator Sinh \(node Sinh_2\) has no gradient rule"):
        differentiate(graph, y, x, ["w"])


def test_weight_that_does_not_reach_the_feature() -> None:
    graph = Graph()
    x = graph.input(TensorSpec("x", "float32", (-1, 2)))
    graph.weight("lost", np.ones(2, dtype=np.float32))
    with pytest.raises(ExportError, match="weights lost do not reach the cut"):
        differentiate(graph, graph.op("Relu", [x], (-1, 2)), x, ["lost"])


def test_groups_that_do_not_divide_the_channels(tmp_path: object, digits: Dataset) -> None:
    with pytest.raises(UsageError, match=r"7 groups cannot code 128 channels.*choose --groups from 1, 2, 4, 8"):
        export_named(
            f"{tmp_path}/b",
            NamedNetwork("vgg11", input_shape="1,32,32"),
            Calibration(digits, 8),
            Coding(feature_codec("sgq", {"groups": 7})),
        )


def test_cut_in_the_head(tmp_path: object, digits: Dataset) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 10), nn.ReLU(), nn.Linear(10, 10))
    with pytest.raises(UsageError, match=r"the feature at '2' is \[8, 10\], expected \(n,C,h,w\)"):
        build_bundle(
            f"{tmp_path}/b",
            Network(model, "m", "2"),
            CalibrationImages(digits.train_images[:8], digits.mean, digits.std, 10),
            Coding(feature_codec("raw", {})),
        )


def test_unknown_model(tmp_path: object, digits: Dataset) -> None:
    with pytest.raises(UnknownName, match="unknown model 'vg11': did you mean vgg11"):
        export_named(
            f"{tmp_path}/b",
            NamedNetwork("vg11"),
            Calibration(digits, 8),
            Coding(feature_codec("raw", {})),
        )


def test_classes_that_are_not_the_datasets(tmp_path: object, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="vgg11 for 7 classes, and digits has 10: expected as many"):
        export_named(
            f"{tmp_path}/b",
            NamedNetwork("vgg11", classes=7),
            Calibration(digits, 8),
            Coding(feature_codec("raw", {})),
        )


def test_statement_in_place_that_torch_fx_loses(tmp_path: object, digits: Dataset) -> None:
    class Alias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            z = y
            y += 3.0
            out: torch.Tensor = self.head(self.second(z))
            return out

    with pytest.raises(ExportError, match=r"the two halves of Alias give other outputs than the whole.*in place"):
        build_bundle(
            f"{tmp_path}/b",
            Network(Alias(), "m", "first"),
            CalibrationImages(digits.train_images[:8], digits.mean, digits.std, 10),
            Coding(feature_codec("raw", {})),
        )


def test_gradients_add_up_where_a_tensor_is_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(x)
            return y + torch.relu(y)

    torch.manual_seed(0)
    front = Twice()
    graphs = front_graphs(front, (1, 4, 4), feature_codec("raw", {}), {})
    x, g = torch.randn(3, 1, 4, 4), torch.randn(3, 2, 4, 4)
    front(x).backward(g)
    from edgekit.runtime.backends.registry import backend_class

    train = backend_class("reference")(graphs.models["front_train.onnx"], graphs.specs["front_train"])
    train.set_weights({"conv.weight": front.conv.weight.detach().numpy()})
    saved = train.run({"image": x.numpy()})
    grad = backend_class("reference")(graphs.models["front_grad.onnx"], graphs.specs["front_grad"])
    grad.set_weights({s.name: front.conv.weight.detach().numpy() for s in graphs.specs["front_grad"].held})
    feeds = {"image": x.numpy(), "gradient": g.numpy(), **saved}
    computed = grad.run({s.name: feeds[s.name] for s in graphs.specs["front_grad"].inputs})
    assert front.conv.weight.grad is not None
    np.testing.assert_allclose(computed["gradient.conv.weight"], front.conv.weight.grad.numpy(), rtol=1e-5)


class Pair(nn.Module):
    """Two convolutions with batch norm, cut behind "second"; subclasses spoil it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.first, self.first_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.cut = nn.ReLU()
        self.head = nn.Sequential(nn.Conv2d(4, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        for norm in (self.first_norm, self.second_norm):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)
            assert norm.running_var is not None
            nn.init.uniform_(norm.running_var, 0.2, 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first_norm(self.first(self.stem(x))).relu()
        z: torch.Tensor = self.head(self.cut(self.second_norm(self.second(y))))
        return z


class Functional(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        y = self.first_norm(self.first(y)) + nn.functional.conv2d(y, self.first.weight, padding=1)
        z: torch.Tensor = self.head(self.cut(self.second_norm(self.second(y))))
        return z


class BatchStatistics(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.first_norm
        y = nn.functional.batch_norm(
            self.first(self.stem(x)), norm.running_mean, norm.running_var, norm.weight, norm.bias, True
        )
        z: torch.Tensor = self.head(self.cut(self.second_norm(self.second(y))))
        return z


class Asserts(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 3, "three channels"
        return super().forward(x)


def shared(net: Pair) -> None:
    net.head[0] = nn.Conv2d(4, 4, 3, padding=1)
    net.head[3] = nn.Linear(4, 10)
    net.head[0].weight = net.first.weight


def hooked(net: Pair) -> None:
    net.first.register_forward_hook(lambda module, args, output: output * 1.5)


def normed(net: Pair) -> None:
    torch.nn.utils.parametrizations.weight_norm(net.first)


def across(net: Pair) -> None:
    net.first_norm = nn.SyncBatchNorm(4)  # type: ignore[assignment]


def broken(net: Pair) -> None:
    with torch.no_grad():
        net.first.weight[0, 0, 0, 0] = float("nan")


def nothing_to_train(net: Pair) -> None:
    net.requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        (Pair, shared, r"weights first.weight are used on both sides"),
        (Pair, hooked, "do not express this network"),
        (Pair, normed, "remove_parametrizations|weight_norm"),
        (Pair, across, "layer 'first_norm' is a SyncBatchNorm"),
        (Pair, broken, "gives values that are not finite"),
        (Pair, nothing_to_train, "no weight of the front half has requires_grad"),
        (Functional, None, "do not express this network"),
        (BatchStatistics, None, "with training=True|cannot be folded"),
        (Asserts, None, "cannot be traced by torch.fx: (AssertionError|TraceError)"),
    ],
)
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_network_that_graphs_would_get_wrong(
    tmp_path: object, digits: Dataset, kind: type[Pair], spoil: Callable[[Pair], None] | None, message: str, norm: str
) -> None:
    torch.manual_seed(0)
    network = kind()
    if spoil is not None:
        spoil(network)
    with pytest.raises(ExportError, match=message):
        build_bundle(
            f"{tmp_path}/b",
            Network(network, "m", "cut"),
            CalibrationImages(digits.train_images[:16], digits.mean, digits.std, 10),
            Coding(feature_codec("sgq", {"groups": 2})),
            BoardSettings(norm=norm),
        )


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_tied_weights_are_exported_once_and_rightly(tmp_path: object, digits: Dataset, norm: str) -> None:
    network = Pair()
    network.second.weight = network.first.weight
    bundle = build_bundle(
        f"{tmp_path}/b",
        Network(network, "m", "cut"),
        CalibrationImages(digits.train_images[:16], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {"groups": 2})),
        BoardSettings(norm=norm),
    )
    state = bundle.arrays("front.safetensors")
    assert "first.weight" in state and "second.weight" not in state


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_weights_without_requires_grad_are_not_trained(tmp_path: object, digits: Dataset, norm: str) -> None:
    network = Pair()
    network.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    bundle = build_bundle(
        f"{tmp_path}/b",
        Network(network, "m", "cut"),
        CalibrationImages(digits.train_images[:16], digits.mean, digits.std, 10),
        Coding(feature_codec("raw", {})),
        BoardSettings(norm=norm),
    )
    names = {spec.name for spec in bundle.graphs["front_grad"].outputs}
    assert "gradient.first.weight" in names and not any("stem" in name for name in names)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("mean", "std"), [((float("nan"),), (1.0,)), ((0.5,), (0.0,)), ((0.5,), (float("inf"),))])
def test_normalisation_that_makes_no_sense(
    tmp_path: object, digits: Dataset, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(UsageError, match=r"(mean|std) .*: expected numbers from"):
        build_bundle(
            f"{tmp_path}/b",
            Network(Pair(), "m", "cut"),
            CalibrationImages(digits.train_images[:16], mean, std, 10),
            Coding(feature_codec("raw", {})),
        )

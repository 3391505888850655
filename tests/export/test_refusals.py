"""What cannot be exported is refused with the layer and the operator named."""

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import ExportError, UnknownName, UsageError
from edgekit.export.build import build_bundle, front_graphs
from edgekit.export.gradient import differentiate
from edgekit.export.graph import Graph
from edgekit.export.named import export_named
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
            "vgg11", f"{tmp_path}/b", cut=None, dataset=digits, codec=feature_codec("sgq", {"groups": 7}),
            input_shape="1,32,32", calibration=8, seed=0, overwrite=False,
        )  # fmt: skip


def test_cut_in_the_head(tmp_path: object, digits: Dataset) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 10), nn.ReLU(), nn.Linear(10, 10))
    with pytest.raises(UsageError, match=r"the feature at '2' is \[8, 10\], expected \(n,C,h,w\)"):
        build_bundle(
            f"{tmp_path}/b", model, name="m", cut="2", images=digits.train_images[:8], mean=digits.mean, std=digits.std,
            classes=10, codec=feature_codec("raw", {}),
        )  # fmt: skip


def test_unknown_model(tmp_path: object, digits: Dataset) -> None:
    with pytest.raises(UnknownName, match="unknown model 'vg11': did you mean vgg11"):
        export_named(
            "vg11", f"{tmp_path}/b", cut=None, dataset=digits, codec=feature_codec("raw", {}), input_shape=None,
            calibration=8, seed=0, overwrite=False,
        )  # fmt: skip


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
            f"{tmp_path}/b", Alias(), name="m", cut="first", images=digits.train_images[:8], mean=digits.mean,
            std=digits.std, classes=10, codec=feature_codec("raw", {}),
        )  # fmt: skip


def test_gradients_add_up_where_a_tensor_is_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y + torch.relu(y)

    torch.manual_seed(0)
    front = Twice()
    graphs = front_graphs(front, (1, 4, 4), feature_codec("raw", {}), {})
    x, g = torch.randn(3, 1, 4, 4), torch.randn(3, 2, 4, 4)
    front(x).backward(g)
    from edgekit.runtime.registry import backend_class

    train = backend_class("reference")(graphs.models["front_train.onnx"], graphs.specs["front_train"])
    train.set_weights({"conv.weight": front.conv.weight.detach().numpy()})
    saved = train.run({"image": x.numpy()})
    grad = backend_class("reference")(graphs.models["front_grad.onnx"], graphs.specs["front_grad"])
    grad.set_weights({s.name: front.conv.weight.detach().numpy() for s in graphs.specs["front_grad"].held})
    feeds = {"image": x.numpy(), "gradient": g.numpy(), **saved}
    computed = grad.run({s.name: feeds[s.name] for s in graphs.specs["front_grad"].inputs})
    assert front.conv.weight.grad is not None
    np.testing.assert_allclose(computed["gradient.conv.weight"], front.conv.weight.grad.numpy(), rtol=1e-5)

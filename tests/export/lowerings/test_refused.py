"""What the front half cannot be is refused: the message names the layer and the operator, and says what to do."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.errors import ExportError
from edgekit.export.front import FrontBuilder, image_input
from edgekit.export.graph import TRAINING, Graph, Versions
from edgekit.export.split import split

OLD = Versions(11, 7)
IMAGE = (4, 8, 6)


class Apply(nn.Module):
    """A function as a layer, with a parameter and buffers at hand."""

    mean: torch.Tensor
    order: torch.Tensor

    def __init__(self, function: Callable[["Apply", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.register_buffer("mean", torch.randn(1, 4, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def network(layer: nn.Module) -> nn.Module:
    """`layer`, named "op", behind a convolution."""
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(4, 4, 1))
    net.add_module("op", layer)
    return net


def build(net: nn.Module, shape: tuple[int, ...] = IMAGE, training: bool = False) -> Graph:
    graph = Graph(TRAINING if training else OLD)
    FrontBuilder(graph, training).build(net, image_input(graph, shape))
    return graph


def grown(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y.expand(x.shape[0], 4, 8, 6)


def writes_a_buffer(m: Apply, x: torch.Tensor) -> torch.Tensor:
    m.mean.add_(1)
    return x + m.mean


def writes_every_other_row(m: Apply, x: torch.Tensor) -> torch.Tensor:
    F.relu_(x[:, :, ::2])
    return x


REFUSED: dict[str, tuple[nn.Module | Callable[[Apply, torch.Tensor], torch.Tensor], str]] = {
    "unknown": (lambda m, x: x.abs(), r"aten.abs.default has no lowering to ONNX; .*, or cut before this layer"),
    "near": (nn.LogSigmoid(), r"aten.log_sigmoid.default has no lowering .*similar name that have one: .*\bsigmoid\b"),
    "advice": (lambda m, x: torch.einsum("nchw,nc->nhw", x, x[..., 0, 0]), "aten.einsum.default .* matmul, permute"),
    "zeros": (lambda m, x: torch.cat([x, x.new_zeros(x.shape[0], 1, 8, 6)], 1), r"zeros.default .*functional\.pad"),
    "random": (lambda m, x: x + torch.rand(4, 1, 1), r"aten.rand.default has no lowering .* no random numbers"),
    "local response norm": (nn.LocalResponseNorm(3), "aten.avg_pool3d.default has no lowering .* use batch norm"),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), "_weight_norm.*remove_param"),
    "max pool with dilation": (nn.MaxPool2d(2, dilation=2), r"with dilation=\[2, 2\].*use dilation=1"),
    "max pool that keeps places": (lambda m, x: F.adaptive_max_pool2d(x, 1, True)[1] * x, "with a int64 result"),
    "adaptive max pool": (nn.AdaptiveMaxPool2d(3), r"adaptive_max_pool2d.default from \[8, 6\] to \[3, 3\].*divides"),
    "instance norm": (nn.InstanceNorm2d(4, track_running_stats=True), "with running statistics.*=False"),
    "batch norm": (nn.BatchNorm2d(4, track_running_stats=False), "without running statistics.*=True"),
    "exponent": (lambda m, x: x.square() ** 0.3, r"aten.pow.Tensor_Scalar with exponent 0.3.*0.5, 1, 2, 3"),
    "addmm": (lambda m, x: torch.addmm(m.matrix[0], x[:, 0, 0], m.matrix, alpha=2), "with alpha=2, beta=1"),
    "vector": (lambda m, x: x @ m.matrix[:, 0], "with a vector .* unsqueeze"),
    "double": (lambda m, x: x * torch.ones(4, 1, 1, dtype=torch.float64), "with a float64 result .* keep to float32"),
    "half": (lambda m, x: x.half().float(), "with a float16 result"),
    "batch of 1": (lambda m, x: x[:1], r"aten.slice.Tensor with a result \(1,4,8,6\) .*keep the batch n as the first"),
    "image 0": (lambda m, x: x[0], r"aten.select.int with a result \(4,8,6\)"),
    "batch mean": (lambda m, x: x.mean(0), r"aten.mean.dim with a result \(4,8,6\)"),
    "batch softmax": (lambda m, x: x.softmax(0), "aten.softmax.int over the batch"),
    "batch flattened": (lambda m, x: x.flatten(0, 1), r"with a result \(4\*n,8,6\)"),
    "batch moved": (lambda m, x: x.transpose(0, 1), r"with a result \(4,n,8,6\)"),
    "batch from nothing": (lambda m, x: torch.cat([grown(x, m.mean), x], 1), "without a batch"),
    "no channels": (lambda m, x: F.max_pool2d(x[:, 0], 2), r"max_pool2d.default on a tensor \(n,8,6\)"),
    "size": (lambda m, x: x / x.shape[0], r"aten.div.Tensor with a number that depends on the images"),
    "value": (lambda m, x: x * x.sum((1, 2, 3)).max().item(), "a number that depends on the images|aten.max.default"),
    "channel twice": (lambda m, x: x[:, [0, 0, 1]], "aten.index.Tensor that takes a channel twice .* repeat"),
    "row list": (lambda m, x: x[:, :, [1, 0]], "other than by a constant list of channels"),
    "mask": (lambda m, x: x[:, torch.tensor([True, False, True, True])], r"with a result \(n,u0,8,6\)"),
    "places": (lambda m, x: x[:, m.order, [0, 1, 2, 3]], "by several tensors"),
    "both expanded": (lambda m, x: x + grown(x, m.mean) * grown(x, m.mean), "both expanded"),
    "slice written with a step": (writes_every_other_row, "aten.slice_scatter.default with step 2 .* torch.cat"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str) -> None:
    layer, message = REFUSED[name]
    net = network(layer if isinstance(layer, nn.Module) else Apply(layer))
    with pytest.raises(ExportError, match=rf"^layer 'op(\.[.\w]+)?': operator .*{message}"):
        build(net)


def test_what_is_refused_only_where_there_is_a_gradient() -> None:
    for layer, message in (
        (nn.BatchNorm2d(4, momentum=None), "with momentum=None or 0 .* such as 0.1"),
        (Apply(lambda m, x: x * torch.sigmoid(x).detach()), "aten.detach.default which stops the gradient"),
    ):
        net = network(layer)
        build(net)
        with pytest.raises(ExportError, match=rf"^layer 'op': operator .*{message}"):
            build(net, training=True)


def test_weights_that_are_not_float32_are_named() -> None:
    with pytest.raises(ExportError, match=r"weight 'conv.weight' is float16, expected float32: call \.float"):
        build(network(nn.ReLU()).half())


def test_a_buffer_that_forward_writes_is_named() -> None:
    with pytest.raises(ExportError, match=r"forward writes to 'op.mean', .* remove that"):
        build(network(Apply(writes_a_buffer)))


def test_a_batch_of_one_size_is_refused_with_torchs_words() -> None:
    with pytest.raises(ExportError, match=r"does not take batches of any size: .*\(2\).*write x.shape\[0\]"):
        build(network(Apply(lambda m, x: x.reshape(2, 4, -1))))


def test_an_image_that_does_not_fit_is_refused_with_torchs_words() -> None:
    with pytest.raises(ExportError, match=r"on images \(n,3,8,6\): .*expected input.* 4 channels"):
        build(network(nn.ReLU()), (3, 8, 6))


class Block(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


def test_messages_name_the_block_of_a_function_even_after_the_split() -> None:
    network = nn.Sequential(Block(torch.relu), nn.Sequential(Block(torch.abs)), nn.Flatten(), nn.Linear(192, 2))
    front, _ = split(network, "1")
    with pytest.raises(ExportError, match=r"layer '1.0': operator aten.abs.default"):
        build(front)
    front, _ = split(network, "0")
    assert build(front).layers == {"Conv_1": "0.conv", "Relu_2": "0"}

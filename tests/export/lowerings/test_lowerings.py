"""Every lowering against PyTorch in evaluation mode; every refusal with its message."""

import copy
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.export.front import FrontBuilder, image_input
from edgekit.export.graph import TRAINING, Graph, Shape, Versions
from edgekit.export.lowerings.program import exported

OLD, NEW = Versions(11, 7), Versions(17, 8)
IMAGE = (4, 8, 6)
#: What the gradient rules and the converters' lists count on.
OPERATORS = {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Elu", "Erf", "Exp",
    "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Neg", "PRelu",
    "Pad", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Sub", "Tanh", "Transpose",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of one test start from one export, which is most of the work."""
    seen: dict[tuple[int, Shape], torch.export.ExportedProgram] = {}

    def once(front: nn.Module, shape: Shape, known: dict[object, object]) -> torch.export.ExportedProgram:
        if (id(front), shape) not in seen:
            seen[id(front), shape] = exported(front, shape, known)
        return seen[id(front), shape]

    monkeypatch.setattr("edgekit.export.front.exported", once)


class Apply(nn.Module):
    """A function as a layer named "op", behind a convolution, with a parameter and buffers at hand."""

    mean: torch.Tensor
    order: torch.Tensor
    offset: torch.Tensor

    def __init__(self, function: Callable[["Apply", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.matrix = nn.Parameter(torch.randn(6, 5) / 3)
        self.register_buffer("mean", torch.randn(1, 4, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.register_buffer("offset", torch.randn(4, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def network(layer: nn.Module) -> nn.Module:
    """`layer` behind a convolution, with no parameter or statistic at its first value."""
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(4, 4, 1))
    net.add_module("op", layer)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.8, 1.2)
    for name, buffer in net.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return net


def model(net: nn.Module, versions: Versions, training: bool, shape: tuple[int, ...] = IMAGE) -> onnx.ModelProto:
    graph = Graph(versions)
    output = FrontBuilder(graph, training).build(net, image_input(graph, shape))
    return onnx.load_model_from_string(graph.model([output], file="front.onnx")[0])


def run(proto: onnx.ModelProto, image: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": image.numpy()})
    return np.asarray(output)


def check(net: nn.Module, shape: tuple[int, ...] = IMAGE) -> None:
    for versions, training in ((OLD, False), (NEW, False), (TRAINING, True)):
        proto = model(net, versions, training, shape)
        assert {node.op_type for node in proto.graph.node} <= OPERATORS
        for n in (1, 3):
            image = torch.randn(n, *shape)
            with torch.no_grad():
                # What writes into its input shall not write into the image.
                expected = copy.deepcopy(net).train(training)(image.clone()).numpy()
            np.testing.assert_allclose(run(proto, image), expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


LAYERS = {
    "conv": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
    "conv depthwise": nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
    "conv same, even": nn.Conv2d(4, 6, (4, 2), padding="same", dilation=(1, 3)),
    "conv valid": nn.Conv2d(4, 6, 3, padding="valid"),
    "conv reflect": nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"),
    "conv circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "conv transpose": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=(1, 2)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
    "linear without bias": nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False)),
    "linear on rows": nn.Linear(6, 5),
    "linear on rows without bias": nn.Linear(6, 5, bias=False),
    "batch norm": nn.BatchNorm2d(4),
    "batch norm, not affine": nn.BatchNorm2d(4, affine=False),
    "group norm": nn.GroupNorm(2, 4),
    "group norm, not affine": nn.GroupNorm(4, 4, affine=False),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "instance norm, not affine": nn.InstanceNorm2d(4),
    "layer norm": nn.LayerNorm([8, 6]),
    "layer norm, not affine": nn.LayerNorm(6, elementwise_affine=False),
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(inplace=True),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "leaky relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(4),
    "prelu, one slope": nn.PReLU(),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.7),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish(inplace=True),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU("tanh"),
    "mish": nn.Mish(),
    "glu": nn.GLU(1),
    "softmax over channels": nn.Softmax(1),
    "softmax over columns": nn.Softmax(-1),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "max pool with ceil_mode": nn.MaxPool2d((3, 2), (3, 4), (1, 0), ceil_mode=True),
    "max pool with ceil_mode that drops a window": nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    "adaptive max pool": nn.AdaptiveMaxPool2d((4, 2)),
    "adaptive max pool to the same size": nn.AdaptiveMaxPool2d((8, 6)),
    "average pool": nn.AvgPool2d(2),
    "average pool with padding": nn.AvgPool2d(3, 2, 1),
    "average pool of what is inside": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pool with ceil_mode": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average pool with a divisor": nn.AvgPool2d(2, divisor_override=3),
    "adaptive average pool to 1": nn.AdaptiveAvgPool2d(1),
    "adaptive average pool that divides": nn.AdaptiveAvgPool2d((4, 2)),
    "adaptive average pool to the same size": nn.AdaptiveAvgPool2d((8, None)),
    "adaptive average pool that does not divide": nn.AdaptiveAvgPool2d((5, 7)),
    "channel shuffle": nn.ChannelShuffle(2),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "unflatten": nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 12))),
    "zero pad": nn.ZeroPad2d((1, 0, 2, 1)),
    "constant pad": nn.ConstantPad2d((0, 1, 0, 0), 0.5),
    "reflection pad": nn.ReflectionPad2d((1, 2, 0, 3)),
    "replication pad": nn.ReplicationPad2d(2),
    "crop": nn.ZeroPad2d((-1, 2, 0, -3)),
    "dropout": nn.Sequential(nn.Dropout(0.0), nn.Dropout2d(0.0), nn.AlphaDropout(0.0), nn.FeatureAlphaDropout(0.0)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest to a size": nn.Upsample(size=(11, 5)),
    "bilinear": nn.Upsample(scale_factor=(2.0, 1.5), mode="bilinear"),
    "bilinear by corners": nn.Upsample(size=(9, 7), mode="bilinear", align_corners=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    check(network(LAYERS[name]))


def squeeze_and_excite(m: Apply, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)).expand_as(x)


def shuffle(m: Apply, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.size()
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def in_place_on_a_view(m: Apply, x: torch.Tensor) -> torch.Tensor:
    flat = x.view(x.shape[0], -1)
    F.relu_(flat)
    return torch.cat([x, -x], 1)


def in_place_on_a_slice(m: Apply, x: torch.Tensor) -> torch.Tensor:
    F.relu_(x[:, 1:3])
    x[:, 3].mul_(2)
    x[:, :, 1:4] = x[:, :, 5:]
    return x


def in_place_on_what_is_read_later(m: Apply, x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = F.silu(y, inplace=True)
    return y - x + z


def in_place_in_a_row(m: Apply, x: torch.Tensor) -> torch.Tensor:
    return (x * 1).add_(1).mul_(m.scale).sub_(0.5).clamp_(0, 1).relu_()


FUNCTIONS: dict[str, Callable[[Apply, torch.Tensor], torch.Tensor]] = {
    "add and alpha": lambda m, x: torch.add(x, x * 2, alpha=3) + m.mean + m.scale + 1.5,
    "subtract": lambda m, x: torch.sub(x, m.scale, alpha=2) - 1 - x.mean(1, keepdim=True),
    "subtract from": lambda m, x: torch.rsub(x, x * 3, alpha=2) + (1 - x) + torch.rsub(x, 2, alpha=3) - (-x),
    "multiply": lambda m, x: 3 * x * m.scale * x,
    "divide": lambda m, x: (x + 3) / 6 / m.scale + 1 / (2 + x * x) + torch.true_divide(x, 2),
    "exp, sqrt, erf": lambda m, x: x.exp() + (x * x + 1).sqrt() + x.erf() + (x.square() + 1).rsqrt(),
    "power": lambda m, x: x**2 + x.pow(3) - x**4 + (1 + x**2) ** 0.5,
    "clamp": lambda m, x: x.clamp(min=-0.5) + x.clamp(max=0.2) + x.clamp_min(0) + x.clamp_max(0.1) + x.clamp(0, 1),
    "hard swish by hand": lambda m, x: x * F.relu6(x + 3) / 6,
    "squeeze and excite": squeeze_and_excite,
    "expand alone": lambda m, x: torch.cat([x.mean(1, keepdim=True).expand(-1, 3, -1, -1), x], 1),
    "expand a parameter": lambda m, x: x + m.scale.expand(x.shape[0], -1, 8, 6),
    "mean": lambda m, x: x.mean((2, 3)),
    "mean and sum": lambda m, x: x - x.mean([-1, -2], keepdim=True) + x.sum(1, keepdim=True),
    "concatenate": lambda m, x: torch.cat([x, x * 2, m.mean + 0 * x], dim=-3),
    "stack": lambda m, x: torch.stack([x, -x], 2).flatten(1, 2),
    "chunk": lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda m, x: torch.cat([*x.split([1, 3], 1)[::-1], *x.split(3, 1)], 1),
    "tensor split and unbind": lambda m, x: x.tensor_split(2, 1)[1] + x.unbind(1)[0].unsqueeze(1),
    "narrow and slice": lambda m, x: x.narrow(1, 1, 2)[:, :, -5:-1:2, ::3],
    "select": lambda m, x: x[:, -1] + x[:, 0],
    "even and odd": lambda m, x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1),
    "view": lambda m, x: x.view(x.size(0), -1),
    "reshape": lambda m, x: x.reshape(-1, 2, 1, 96).squeeze(2).unsqueeze(-1).permute(0, 3, 2, 1).squeeze((1, 3)),
    "channels last": lambda m, x: F.layer_norm(x.movedim(1, -1), (4,)).permute(0, 3, 1, 2).mT,
    "shuffle": shuffle,
    "matmul": lambda m, x: x @ m.matrix,
    "attention": lambda m, x: (x @ x.transpose(-1, -2)).softmax(-1) @ x,
    "mm": lambda m, x: torch.mm(x[:, 0, 0], m.matrix) + torch.addmm(m.matrix[0], x[:, 1, 0], m.matrix),
    "mm transposed": lambda m, x: torch.mm(x[:, 0, 0], m.matrix.t().contiguous().t()),
    "bmm": lambda m, x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
    "functional linear": lambda m, x: F.linear(x, m.matrix.t()),
    "channels by a buffer": lambda m, x: x[:, m.order] * 2,
    "channels by a list": lambda m, x: x[:, [3, 1]] + x.index_select(1, torch.tensor([0, 2])),
    "repeat": lambda m, x: x.repeat(1, 2, 1, 3),
    "pad channels": lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
    "new constants": lambda m, x: x * torch.arange(1, 5).view(4, 1, 1) + torch.tensor([0.5, 1, 2, 3]).view(1, 4, 1, 1),
    "a buffer that is not saved": lambda m, x: x + m.offset,
    "double constant": lambda m, x: x * torch.tensor(0.1, dtype=torch.float64),
    "same dtype": lambda m, x: x.float().to(torch.float32).type_as(x).contiguous().clone(),
    "weights computed": lambda m, x: F.conv2d(x, m.matrix[:4, :4].reshape(4, 4, 1, 1) * m.scale.unsqueeze(1)),
    "in place on a view": in_place_on_a_view,
    "in place on a slice": in_place_on_a_slice,
    "in place on what is read later": in_place_on_what_is_read_later,
    "in place in a row": in_place_in_a_row,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    check(network(Apply(FUNCTIONS[name])))


def test_squeeze_leaves_a_batch_of_one() -> None:
    proto = model(network(Apply(lambda m, x: x.mean((1, 3), keepdim=True).squeeze())), OLD, training=False)
    assert run(proto, torch.randn(1, *IMAGE)).shape == (1, 8)


def test_the_image_may_be_written_in_place() -> None:
    check(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)))

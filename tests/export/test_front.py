"""What a front half's graph looks like: names of weights, attributes, the statistics of batch norm."""

import numpy as np
import onnx
import onnxruntime
import torch
from torch import fx, nn

from edgekit.export.front import BatchNorm, FrontBuilder, image_input
from edgekit.export.graph import TRAINING, Graph, Versions


class Scaled(nn.Module):
    """Channels reordered and scaled, with every kind of tensor that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("mean", torch.randn(1, 4, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.register_buffer("offset", torch.randn(4, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)[:, self.order] * self.scale + self.mean + self.offset + torch.ones(4, 1, 1)
        return y


def build(net: nn.Module, training: bool = False) -> tuple[Graph, str, list[BatchNorm]]:
    graph = Graph(TRAINING if training else Versions(11, 7))
    builder = FrontBuilder(graph, training)
    return graph, builder.build(net, image_input(graph, (4, 8, 6))), builder.batch_norms


def test_weights_are_what_is_saved_and_the_rest_are_constants() -> None:
    net = Scaled()
    assert set(build(net)[0].weights) == {"conv.weight", "conv.bias", "scale", "mean"}
    # fx makes buffers of all tensors that it meets.
    traced = fx.symbolic_trace(net)
    weights = set(build(traced)[0].weights)
    assert weights == {"conv.weight", "conv.bias", "scale", "mean", "offset", "_tensor_constant0"}
    assert weights <= set(traced.state_dict())


def test_a_weight_used_twice_has_the_name_that_named_parameters_gives_it() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert list(build(net)[0].weights) == [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]


def test_batch_statistics_are_the_batchs_own() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, momentum=0.3))
    graph, _, (norm,) = build(net, training=True)
    assert norm[:3] == ("1.running_mean", "1.running_var", 0.3)
    assert norm.positions == 48
    proto, _ = graph.model([norm.batch_mean, norm.batch_var], file="front.onnx")
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    image = torch.randn(3, 4, 8, 6)
    mean, var = session.run(None, {"image": image.numpy()})
    features = net[0](image).detach()
    np.testing.assert_allclose(mean, features.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(var, features.var((0, 2, 3), correction=0), atol=1e-5)


def test_attributes_are_explicit() -> None:
    graph, output, _ = build(nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 2, False)))
    proto = onnx.load_model_from_string(graph.model([output], file="front.onnx")[0])
    value = onnx.helper.get_attribute_value
    attributes = {node.op_type: {a.name: value(a) for a in node.attribute} for node in proto.graph.node}
    assert attributes["Conv"] == {
        "kernel_shape": [3, 3], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1,
    }  # fmt: skip
    assert attributes["MaxPool"] == {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    assert attributes["Gemm"] == {"transB": 1}
    inputs = {node.op_type: list(node.input) for node in proto.graph.node}
    assert len(inputs["Gemm"]) == 3
    np.testing.assert_array_equal(graph.constants[inputs["Reshape"][1]], [-1, 24])

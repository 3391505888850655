"""The front half as an ONNX graph: torch.export gives ATen operators, the table below turns each into ONNX nodes.

Batch norm exists twice: on its running statistics, as deployed, and in training mode, as in PyTorch's ``train()``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from edgekit.errors import ExportError
from edgekit.export.graph import BATCH, Graph, Shape
from edgekit.tensors import TensorSpec

Emit = Callable[["FrontBuilder", fx.Node, list[Any]], str]


class BatchNorm(NamedTuple):
    """One batch norm of the front half: names of its buffers and of the outputs that hold the batch's statistics.

    `positions` is h*w of its input, so a batch of n images has n * positions values per channel.
    """

    running_mean: str
    running_var: str
    momentum: float
    batch_mean: str
    batch_var: str
    positions: int


class FrontBuilder:
    """Emits the nodes of a front half into `graph`; `training` selects batch norm's mode."""

    def __init__(self, graph: Graph, training: bool) -> None:
        self.graph = graph
        self.training = training
        self.batch_norms: list[BatchNorm] = []

    def build(self, front: nn.Module, image: str) -> str:
        """Adds `front` applied to tensor `image`; returns the name of the feature.

        ExportError names the operator and the layer that has no rule.
        """
        program = _program(front, self.graph.shape(image)[1:])
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        values = {name: value.detach().numpy() for name, value in program.state_dict.items()}
        tensors: dict[fx.Node, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                if node.name in names:
                    name = names[node.name]
                    tensors[node] = self.graph.weight(name, values[name]) if node.users else name
                else:
                    tensors[node] = image
            elif node.op == "call_function":
                tensors[node] = self._emit(node, tensors)
            elif node.op == "output":
                (result,) = node.args[0]
                return str(tensors[result])
        raise AssertionError("a graph without output")

    def _emit(self, node: fx.Node, tensors: dict[fx.Node, Any]) -> str:
        layer = layer_of(node)
        if node.target not in EMIT:
            raise ExportError(
                f"layer '{layer}': operator {node.target} has no rule for the front half (there are rules for "
                f"{', '.join(sorted(str(target) for target in EMIT))}); cut before this layer"
            )
        self.graph.in_layer(layer)
        arguments = [tensors[a] if isinstance(a, fx.Node) else a for a in node.args]
        return EMIT[node.target](self, node, arguments)


def layer_of(node: fx.Node) -> str:
    """The dotted name of the layer that `node` came from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else node.name


def _program(front: nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    sample = torch.zeros(2, *shape)
    return torch.export.export(front.eval(), (sample,), dynamic_shapes=({0: torch.export.Dim("n")},))


def _shape(node: fx.Node) -> Shape:
    return (BATCH, *(int(d) for d in node.meta["val"].shape[1:]))


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (values * 2 if len(values) == 1 else values)]


def _conv(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    a += [None, 1, 0, 1, 1][len(a) - 2 :]
    stride, padding, dilation = _pair(a[3]), _pair(a[4]), _pair(a[5])
    return b.graph.op(
        "Conv",
        [x for x in a[:3] if x is not None],
        _shape(node),
        kernel_shape=list(b.graph.shape(a[1])[2:]),
        strides=stride,
        pads=padding + padding,
        dilations=dilation,
        group=int(a[6]),
    )


def _batch_norm(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    x, scale, bias, mean, var, _, momentum, epsilon, _ = a
    layer = layer_of(node)
    if None in (scale, bias, mean, var) or momentum is None:
        raise ExportError(f"layer '{layer}': batch norm needs affine=True, track_running_stats=True and a momentum")
    if not b.training:
        return b.graph.op("BatchNormalization", [x, scale, bias, mean, var], _shape(node), epsilon=float(epsilon))
    channels = b.graph.shape(scale)
    # ONNX: running = input * momentum + batch * (1 - momentum); at momentum 0 the outputs are the batch's own.
    zeros, ones = (b.graph.constant(np.full(channels, v, dtype=np.float32)) for v in (0.0, 1.0))
    y, batch_mean, batch_var = b.graph.add(
        "BatchNormalization",
        [x, scale, bias, zeros, ones],
        _shape(node),
        channels,
        channels,
        epsilon=float(epsilon),
        momentum=0.0,
        training_mode=1,
    )
    b.batch_norms.append(BatchNorm(mean, var, float(momentum), batch_mean, batch_var, int(np.prod(_shape(node)[2:]))))
    return y


def _relu(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    return b.graph.op("Relu", a[:1], _shape(node))


def _clip(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    low, high = (b.graph.constant(np.array(v, dtype=np.float32)) for v in [*a[1:], -1.0, 1.0][:2])
    return b.graph.op("Clip", [a[0], low, high], _shape(node))


def _max_pool(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    a += [None, None, 0, 1, False][len(a) - 1 :]
    kernel, padding = _pair(a[1]), _pair(a[3])
    strides = _pair(a[2]) if a[2] else kernel
    if _pair(a[4]) != [1, 1] or a[5]:
        raise ExportError(f"layer '{layer_of(node)}': max pooling with dilation or ceil_mode has no rule")
    return b.graph.op("MaxPool", a[:1], _shape(node), kernel_shape=kernel, strides=strides, pads=padding + padding)


def _add(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    if node.kwargs.get("alpha", 1) != 1 or not all(isinstance(x, str) for x in a[:2]):
        raise ExportError(f"layer '{layer_of(node)}': only the plain sum of two tensors has a rule, got {node.args}")
    if b.graph.shape(a[0]) != b.graph.shape(a[1]):
        raise ExportError(f"layer '{layer_of(node)}': a sum that broadcasts has no rule")
    return b.graph.op("Add", a[:2], _shape(node))


def _same(b: FrontBuilder, node: fx.Node, a: list[Any]) -> str:
    return str(a[0])


_aten = torch.ops.aten
EMIT: dict[Any, Emit] = {
    _aten.conv2d.default: _conv,
    _aten.batch_norm.default: _batch_norm,
    _aten.relu.default: _relu,
    _aten.relu_.default: _relu,
    _aten.relu6.default: lambda b, node, a: _clip(b, node, [a[0], 0.0, 6.0]),
    _aten.hardtanh.default: _clip,
    _aten.hardtanh_.default: _clip,
    _aten.max_pool2d.default: _max_pool,
    _aten.add.Tensor: _add,
    _aten.add_.Tensor: _add,
    _aten.dropout.default: _same,  # exported in evaluation mode, where dropout does nothing
}


def image_input(graph: Graph, shape: Shape) -> str:
    """Declares the image (n,C,H,W) float32, normalised, as an input of `graph`."""
    return graph.input(TensorSpec("image", "float32", (BATCH, *shape)))

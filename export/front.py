"""The front half as an ONNX graph: torch.export gives ATen operators, the lowerings write each as ONNX nodes.

Batch norm is written in one of two forms: with its running statistics, for the deployed graph and in layers that are
frozen, or with those of the batch, as after PyTorch's ``train()``, for the graphs that learn. There, weights that are
frozen are constants, which an engine can prepare for its kernels once and for all.
"""

import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn
from torch._ops import OpOverload

from edgekit.errors import ExportError
from edgekit.export.freeze import frozen_names
from edgekit.export.graph import BATCH, Graph, Shape
from edgekit.export.lowerings import conv, linear, norm, pieces, pointwise, pool, resample, shape
from edgekit.export.lowerings.advice import no_lowering
from edgekit.export.lowerings.call import Call, Lowering, bind, describe, plain
from edgekit.export.lowerings.program import exported, functional, has_tensors
from edgekit.tensors import TensorSpec

#: ATen operator -> what writes it as ONNX nodes; batch norm is FrontBuilder's own.
LOWERINGS: dict[Any, Lowering] = {
    **conv.LOWERINGS,
    **linear.LOWERINGS,
    **norm.LOWERINGS,
    **pieces.LOWERINGS,
    **pointwise.LOWERINGS,
    **pool.LOWERINGS,
    **resample.LOWERINGS,
    **shape.LOWERINGS,
}
_aten = torch.ops.aten


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
    """Adds the ONNX nodes of a front half to `graph`; `training` selects batch norm's form."""

    def __init__(self, graph: Graph, training: bool) -> None:
        self.graph = graph
        self.training = training
        self.batch_norms: list[BatchNorm] = []
        self._batch = ""
        self._lowerings: dict[Any, Lowering] = {
            **LOWERINGS,
            _aten.batch_norm.default: self._batch_norm,
            _aten._native_batch_norm_legit_no_training.default: lambda c, a: [self._batch_norm(c, a)],
        }

    def build(self, front: nn.Module, image: str) -> str:
        """Adds `front` applied to tensor `image`; returns the name of the feature.

        ExportError names the layer and the operator that has no lowering.
        """
        program = exported(front, self.graph.shape(image)[1:], self._lowerings)
        (sample,) = (n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
        self._batch = str(sample.meta["val"].shape[0])
        # Of each node: a str names a tensor of the graph, a torch.Tensor is a constant, None a size, which shapes give.
        values: dict[fx.Node, Any] = dict(self._given(program, front, image))
        for node in program.graph.nodes:
            if node.op == "call_function":
                values[node] = self._value(node, values)
        (output,) = program.graph.find_nodes(op="output")
        (feature,) = (n for n in output.args[0] if n.name == program.graph_signature.user_outputs[0])
        return str(self._named(values[feature], exact=False))

    def _given(
        self, program: torch.export.ExportedProgram, front: nn.Module, image: str
    ) -> Iterator[tuple[fx.Node, Any]]:
        """The inputs of `program`, and for each its value: the image, a weight or a constant."""
        signature = program.graph_signature
        if signature.buffers_to_mutate:
            buffers = ", ".join(f"'{name}'" for name in signature.buffers_to_mutate.values())
            raise ExportError(f"forward writes to {buffers}, but a graph keeps no values from run to run: remove that")
        tensors = {**program.constants, **program.state_dict}
        names = {
            **signature.inputs_to_parameters, **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }  # fmt: skip
        # Of the names of a weight that several layers share, named_parameters() knows the first, torch.export the last.
        first = {id(value): name for name, value in front.named_parameters()}
        shared = {name: first[id(value)] for name, value in front.named_parameters(remove_duplicate=False)}
        frozen = frozen_names(front) if self.training else set()
        for node in program.graph.find_nodes(op="placeholder"):
            if node.name in signature.user_inputs:
                yield node, image
            elif node.users:
                name = names[node.name]
                value = tensors[name].detach()
                weight = name in program.state_dict and value.is_floating_point()
                name = shared.get(name, name)
                yield node, self.graph.weight(name, value.numpy()) if weight and name not in frozen else value

    def _value(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """The value of `node`, once its ONNX nodes are added to the graph."""
        if not has_tensors(node) or not node.users:
            return None
        results = list(node.meta["val"]) if isinstance(node.meta["val"], list | tuple) else [node.meta["val"]]
        sources = [values[n] for n in node.all_input_nodes]
        if node.target is operator.getitem:
            return sources[0][node.args[1]]
        target, layer = functional(node.target), layer_of(node)
        if _fixed(target) and all(isinstance(s, torch.Tensor | tuple) for s in sources):
            args, kwargs = _with(node, lambda n: values[n])
            return target(*args, **kwargs)
        if target not in self._lowerings:
            raise no_lowering(layer, target, self._lowerings)
        shapes = [self._shape(result) for result in results]
        users = [functional(user.target) for user in node.users]
        call = Call(self.graph, layer, str(target), shapes, users, self.training)
        _check(call, results, node, any(isinstance(s, str) and BATCH in self.graph.shape(s) for s in sources))
        if any(s is None for s in sources) and target not in shape.SIZED:
            raise call.refused("with a number that depends on the images", "give it a constant or a tensor")
        self.graph.in_layer(layer)
        exact = target in pieces.INDEXING
        args, kwargs = _with(node, lambda n: self._named(values[n], exact))
        return self._lowerings[target](call, bind(target, args, kwargs))

    def _shape(self, result: torch.Tensor) -> Shape:
        """The shape of `result`. A size computed from the batch's is left as text, which `_check` refuses."""
        sizes: list[Any] = [d if isinstance(d, int) else str(d).replace(self._batch, "n") for d in result.shape]
        return tuple(BATCH if d == "n" else d for d in sizes)

    def _named(self, value: Any, exact: bool) -> Any:
        """`value`, or the name of a new constant of the graph if it is a tensor: float32 unless `exact`."""
        if not isinstance(value, torch.Tensor):
            return value
        return self.graph.constant((value if exact else value.float()).numpy())

    def _batch_norm(self, c: Call, a: SimpleNamespace) -> str:
        if not a.running_mean or not a.running_var:
            raise c.refused("without running statistics", "build it with track_running_stats=True")
        if getattr(a, "training", False):
            raise c.refused("with training=True", "use an nn.BatchNorm2d layer: it knows when it learns")
        channels = self.graph.shape(a.running_mean)

        def per_channel(value: float) -> str:
            return self.graph.constant(np.full(channels, value, dtype=np.float32))

        scale, bias, epsilon = a.weight or per_channel(1.0), a.bias or per_channel(0.0), float(a.eps)
        if not self.training or a.running_mean not in self.graph.weights:
            return c.op("BatchNormalization", [a.x, scale, bias, a.running_mean, a.running_var], epsilon=epsilon)
        if not a.momentum:
            raise c.refused("with momentum=None or 0", "give it a momentum, such as 0.1")
        # ONNX computes running = input * momentum + batch * (1 - momentum): at momentum 0 the outputs are the batch's
        # statistics. The inputs are constants of values used for nothing else: ONNX Runtime may write over them.
        y, mean, var = self.graph.add(
            "BatchNormalization", [a.x, scale, bias, per_channel(-0.125), per_channel(0.125)],
            c.shape, channels, channels, epsilon=epsilon, momentum=0.0, training_mode=1,
        )  # fmt: skip
        positions = int(np.prod(c.shape[2:]))
        self.batch_norms.append(BatchNorm(a.running_mean, a.running_var, float(a.momentum), mean, var, positions))
        return y


def layer_of(node: fx.Node) -> str:
    """The dotted name of the layer that `node` came from; its own name if it is in no layer but the network."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack and stack[-1][0] else node.name


def image_input(graph: Graph, shape: Shape) -> str:
    """Declares the image (n,C,H,W) float32, normalised, as an input of `graph`."""
    return graph.input(TensorSpec("image", "float32", (BATCH, *shape)))


def _fixed(target: Any) -> bool:
    """Whether `target` is a pure function: it draws no random numbers and changes no argument."""
    if not isinstance(target, OpOverload) or target._schema.is_mutable:
        return False
    return torch.Tag.nondeterministic_seeded not in target.tags


def _with(node: fx.Node, value: Callable[[fx.Node], Any]) -> tuple[Any, Any]:
    """Arguments and named arguments of `node`, the nodes among them replaced by their `value`."""
    return fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)


def _check(call: Call, results: list[torch.Tensor], node: fx.Node, batched: bool) -> None:
    """ExportError unless every result that is read is float32 and, if `batched`, begins with the batch."""
    picks = [user for user in node.users if user.target is operator.getitem]
    read = {pick.args[1] for pick in picks if pick.users} if picks else {0}
    for i, (result, size) in enumerate(zip(results, call.shapes, strict=True)):
        if i not in read:
            continue
        if result.dtype != torch.float32:
            raise call.refused(f"with a {plain(result.dtype)} result", "keep to float32")
        if (batched and size[:1] != (BATCH,)) or not all(isinstance(d, int) and d != BATCH for d in size[1:]):
            raise call.refused(
                f"with a result {describe(size)}", "keep the batch n as the first dimension, and its size unchanged"
            )

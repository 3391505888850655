"""Counts what each node of a network costs, FLOPs, memory traffic and weights, without computing any values.

The network is traced by torch.fx and run in evaluation mode on tensors without values; every ATen operator that its
nodes call is counted.

=====================================  ===============================================================
convolution, linear, matrix products   2 FLOPs per multiply-add (torch.utils.flop_counter); biases are free
batch norm                             2 per output value
max and average pooling                kernel size per output value
views, copies, concatenation, padding  0
everything else                        1 per output value, or per input value where those are more (means, sums)
=====================================  ===============================================================

Traffic: every operator but a view reads its floating-point arguments, weights included, and writes its results, as
float32, once.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from edgekit.errors import ExportError
from edgekit.export.split import cut_points, last_nodes

POOLS = ("max_pool2d_with_indices", "avg_pool2d")
#: Operators that only copy values.
MOVES = ("cat", "clone", "constant_pad_nd", "copy_", "index", "index_select", "_to_copy", "stack")


class Work(NamedTuple):
    """What one node costs, for a whole batch."""

    #: Nodes whose values it reads.
    inputs: tuple[str, ...]
    #: Of its output, without the batch's dimension.
    shape: tuple[int, ...]
    #: The last ATen operator, "relu"; that of its input where it computes nothing, as dropout in evaluation mode.
    operator: str
    #: Its output comes from a ReLU or a clip at zero, max-pooled or not.
    after_relu: bool
    #: Batch norm, or an operator on the values of one tensor: engines compute it within the node before.
    joins: bool
    flops: int
    bytes_read: int
    bytes_written: int
    #: Parameters of the network that it uses -> number of values.
    parameters: dict[str, int]
    #: How often its forward work is repeated for gradients: once for its weights, once for each input that has any.
    gradients: int


class NetworkWork(NamedTuple):
    """`nodes` in order of computation; `cuts`: layer that `split` takes -> the node behind which it cuts."""

    nodes: dict[str, Work]
    cuts: dict[str, str]

    def halves(self, layer: str) -> tuple[list[Work], list[Work]]:
        """The nodes before the cut at `layer`, and those behind it."""
        front = {self.cuts[layer]}
        for name in reversed(self.nodes):
            if name in front:
                front.update(self.nodes[name].inputs)
        before, behind = ([work for n, work in self.nodes.items() if (n in front) == side] for side in (True, False))
        return before, behind


def count_parameters(works: Iterable[Work]) -> int:
    """Number of values in the parameters that `works` use, each parameter once."""
    sizes: dict[str, int] = {}
    for work in works:
        sizes.update(work.parameters)
    return sum(sizes.values())


def network_work(network: nn.Module, input_shape: tuple[int, ...], batch: int = 1) -> NetworkWork:
    """The work of `network` on `batch` images of `input_shape` (C,H,W). `network` stays as it was.

    ExportError when it cannot be traced, or does not take such images.
    """
    layers = cut_points(network)
    # The copy can be put into evaluation mode; its weights are the same tensors.
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    traced = fx.symbolic_trace(copy.deepcopy(network, shared).eval())
    runner = _Runner(traced)
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), runner.counter:
            runner.run(torch.empty(batch, *input_shape))
    except RuntimeError as error:
        size = ",".join(map(str, input_shape))
        raise ExportError(
            f"{type(network).__name__} does not take images of {size}: {str(error).splitlines()[0]}; give the --input "
            "that it was made for"
        ) from None
    last = last_nodes(traced)
    return NetworkWork(runner.works, {layer: last[layer].name for layer in layers})


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the operators of one node cost."""

    def start(self) -> None:
        self.flops = self.read = self.written = 0
        self.operator = ""
        self.rectifies = False
        self.joins = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = _sizes((args, kwargs)), _sizes(out)
        if func.is_view or not read or not written:
            return out
        name = func.overloadpacket.__name__
        self.operator = name
        self.read += 4 * sum(read)
        self.written += 4 * sum(written)
        unary = len(read) == 1 and written[0] == read[0]
        if func.overloadpacket in flop_registry:
            self.flops += int(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out))
            unary = False
        elif name in POOLS:
            self.flops += written[0] * math.prod(args[1] if len(args[1]) == 2 else 2 * list(args[1]))
            unary = False
        elif "batch_norm" in name:
            self.flops += 2 * written[0]
            unary = True
        elif name in MOVES:
            unary = False
        else:
            self.flops += max(*read, *written)
        self.joins = self.joins and unary
        # The second argument of all clips, clamp and hardtanh, is the lower bound.
        self.rectifies = name == "relu" or (name in ("hardtanh", "clamp", "clamp_min") and list(args[1:2]) == [0])
        return out


def _sizes(value: Any) -> list[int]:
    """Number of values of each floating-point tensor in `value`."""
    tensors = (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))
    return [tensor.numel() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]


class _Runner(fx.Interpreter):
    """Runs a traced network node by node and keeps the work of each."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.counter = _Counter()  # type: ignore[no-untyped-call]
        self.works: dict[str, Work] = {}
        #: Nodes whose value depends on a weight.
        self._learns: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        self.counter.start()
        value = super().run_node(n)
        if n.op == "output":
            return value
        counted, inputs = self.counter, tuple(node.name for node in n.all_input_nodes)
        operator, rectified = counted.operator, counted.rectifies
        before = self.works[inputs[0]] if len(inputs) == 1 else None
        if before is not None and not operator:
            operator, rectified = before.operator, before.after_relu
        elif before is not None and operator == POOLS[0]:
            rectified = before.after_relu
        parameters = dict(_parameters(self.module, n))
        gradients = sum(name in self._learns for name in inputs) + bool(parameters)
        if gradients:
            self._learns.add(n.name)
        shape = tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else ()
        self.works[n.name] = Work(
            inputs, shape, operator, rectified, counted.joins, counted.flops, counted.read, counted.written, parameters,
            gradients,
        )  # fmt: skip
        return value


def _parameters(root: nn.Module, node: fx.Node) -> Iterable[tuple[str, int]]:
    if node.op == "call_module":
        for name, parameter in root.get_submodule(str(node.target)).named_parameters():
            yield f"{node.target}.{name}", parameter.numel()
    elif node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        tensor = getattr(root.get_submodule(owner), name)
        if isinstance(tensor, nn.Parameter):
            yield str(node.target), tensor.numel()

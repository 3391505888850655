"""Call: one ATen operator that is called in the front half, as a lowering gets it to write it as ONNX nodes.

A lowering takes the call and its arguments by the names of the operator's schema ("self" and "input" are both `x`
here). A tensor argument is the name of a tensor in the graph. The lowering returns the name of the result, or a list of
names where the operator returns several tensors.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from edgekit.errors import ExportError
from edgekit.export.graph import BATCH, Graph, Shape

#: What a lowering returns.
Value = str | list[str]
#: Writes one ATen operator as ONNX nodes.
Lowering = Callable[["Call", SimpleNamespace], Value]


class Call:
    """One call of `operator`, an ATen name, in `layer`; `shapes` are those of its results, `users` read them."""

    def __init__(
        self, graph: Graph, layer: str, operator: str, shapes: list[Shape], users: list[Any], training: bool
    ) -> None:
        self.graph = graph
        self.layer = layer
        self.operator = operator
        self.shapes = shapes
        self.users = users
        #: Whether the graph will be differentiated.
        self.training = training

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    def rank(self, name: str) -> int:
        return len(self.graph.shape(name))

    def axis(self, name: str, axis: int) -> int:
        """`axis` of tensor `name`, counted from the front."""
        return axis % self.rank(name)

    def axes(self, name: str, axes: int | Sequence[int] | None) -> list[int]:
        """`axes` of tensor `name`, sorted and counted from the front; all axes for None and for an empty list."""
        wanted = [axes] if isinstance(axes, int) else axes or range(self.rank(name))
        return sorted(self.axis(name, a) for a in wanted)

    def op(self, operator: str, inputs: Sequence[str], shape: Shape | None = None, **attributes: Any) -> str:
        """A node of one float32 output, shaped like the call's result unless `shape` is given."""
        return self.graph.op(operator, inputs, self.shape if shape is None else shape, **attributes)

    def scalar(self, value: float) -> str:
        return self.graph.constant(np.array(value, dtype=np.float32))

    def reshape(self, name: str, shape: Shape) -> str:
        """`name` in another shape; the batch, if any, is the first entry of both."""
        if self.graph.shape(name) == shape:
            return name
        return self.op("Reshape", [name, self.graph.ints(*shape)], shape)

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        if list(perm) == list(range(len(perm))):
            return name
        shape = self.graph.shape(name)
        return self.op("Transpose", [name], tuple(shape[p] for p in perm), perm=list(perm))

    def slice(self, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """Entries start, start + step, ... before end of `axis`; `start` and `end` are counted from the front."""
        shape = self.graph.shape(name)
        if (start, end, step) == (0, shape[axis], 1):
            return name
        size = (*shape[:axis], len(range(start, end, step)), *shape[axis + 1 :])
        window = [self.graph.ints(v) for v in ([start, end, axis] if step == 1 else [start, end, axis, step])]
        return self.op("Slice", [name, *window], size)

    def per_channel(self, name: str, rank: int) -> str:
        """A tensor (C,) shaped to broadcast along axis 1 of a tensor of `rank`."""
        return self.reshape(name, (1, *self.graph.shape(name), *[1] * (rank - 2)))

    def images(self, name: str) -> Shape:
        """The shape (n,C,H,W) of `name`; refused if it is not of rank 4 with the batch first."""
        shape = self.graph.shape(name)
        if len(shape) != 4 or shape[0] != BATCH:
            raise self.refused(f"on a tensor {describe(shape)}", "give it (n,C,H,W), the batch first")
        return shape

    def refused(self, what: str, advice: str) -> ExportError:
        """The error that this operator, called as `what` says, has no lowering; `advice`: what to write instead."""
        return ExportError(
            f"layer '{self.layer}': operator {self.operator} {what} has no lowering to ONNX; {advice}, or cut before "
            "this layer"
        )


def describe(shape: Sequence[Any]) -> str:
    """`shape` as in messages: (n,3,32,32)."""
    return f"({','.join('n' if d == BATCH else str(d) for d in shape)})"


def plain(dtype: torch.dtype) -> str:
    """`dtype` as in messages: float32."""
    return str(dtype).removeprefix("torch.")


def bind(target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> SimpleNamespace:
    """The arguments of a call of operator `target` by name, those left out at their defaults."""
    bound = {}
    for i, argument in enumerate(target._schema.arguments):
        name = "x" if argument.name in ("self", "input") else argument.name
        bound[name] = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
    return SimpleNamespace(**bound)


def pair(value: Any) -> list[int]:
    """[for height, for width] of an argument that is given once for both or once for each."""
    values = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (values * 2 if len(values) == 1 else values)]

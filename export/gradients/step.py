"""Step: what a gradient rule gets, a node of the forward pass with the gradients of its outputs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from edgekit.errors import ExportError
from edgekit.export.graph import Graph, Shape


class Step(NamedTuple):
    """A node to differentiate, and the graph that takes the new nodes.

    A gradient rule reads tensors that other rules read anyway, where it can: a layer's output is the next one's input.
    Every tensor of the forward pass that is read must be kept until then.
    """

    graph: Graph
    node: onnx.NodeProto
    attributes: dict[str, Any]
    #: d loss / d output, per output; None where the loss does not depend on it.
    gradients: list[str | None]
    #: Per input, whether its gradient is wanted.
    needed: list[bool]

    @property
    def x(self) -> str:
        """The first input."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """The first output."""
        return str(self.node.output[0])

    @property
    def g(self) -> str:
        """d loss / d `y`; ExportError when the loss depends on another output too."""
        if self.gradients[0] is None or any(self.gradients[1:]):
            raise self.refuse("has a gradient at an output other than its first; only the first may be used")
        return self.gradients[0]

    def shape(self, index: int) -> Shape:
        """The shape of input `index`."""
        return self.graph.shape(self.node.input[index])

    def op(self, op: str, *inputs: str) -> str:
        """Adds a node whose result is float32 and of the shape of `y`."""
        return self.graph.op(op, inputs, self.graph.shape(self.y))

    def mask(self, *tests: tuple[str, str, str]) -> str:
        """1.0 where all `tests` (comparison, left, right) hold, else 0.0, of the shape of `y`.

        To multiply with: ONNX Runtime vectorises Cast and Mul, not Where.
        """
        shape = self.graph.shape(self.y)
        held = [self.graph.op(op, [left, right], shape, dtypes=["bool"]) for op, left, right in tests]
        both = self.graph.op("And", held, shape, dtypes=["bool"]) if len(held) == 2 else held[0]
        return self.graph.op("Cast", [both], shape, to=onnx.TensorProto.FLOAT)

    def scalar(self, value: float) -> str:
        return self.graph.constant(np.array(value, dtype=np.float32))

    def constant(self, index: int) -> np.ndarray | None:
        """The value of input `index`, None when it is omitted; ExportError when it is computed."""
        if index >= len(self.node.input) or not self.node.input[index]:
            return None
        name = self.node.input[index]
        if name not in self.graph.constants:
            raise self.refuse(f"takes '{name}', which is computed; its gradient rule needs a constant there")
        return self.graph.constants[name]

    def refuse(self, reason: str) -> ExportError:
        """The error `reason`, after the layer, the operator and the node that it is about."""
        layer = self.graph.layers[self.node.name]
        return ExportError(f"layer '{layer}': operator {self.node.op_type} (node {self.node.name}) {reason}")


#: Adds the nodes of the gradients of a step's inputs, and returns one name per input: None for an input that has no
#: gradient, and nothing for those at the end.
GradientRule = Callable[[Step], Sequence[str | None]]


def unbroadcast(step: Step, g: str, index: int) -> str:
    """`g`, of the output's shape, summed to the shape of input `index`: over the axes that this was broadcast along."""
    graph, full, shape = step.graph, step.graph.shape(g), step.shape(index)
    lead = len(full) - len(shape)
    repeated = [axis for axis in range(lead, len(full)) if shape[axis - lead] != full[axis]]
    if any(shape[axis - lead] != 1 for axis in repeated):
        raise step.refuse(
            f"makes {list(full)} of {list(shape)}: a fixed number of images against the batch; make that dimension 1"
        )
    axes = [*range(lead), *repeated]
    if not axes:
        return g
    if not lead:
        return graph.with_axes("ReduceSum", g, shape, axes, keepdims=1)
    left = tuple(length for axis, length in enumerate(full) if axis not in axes)
    total = graph.with_axes("ReduceSum", g, left, axes, keepdims=0)
    return graph.op("Reshape", [total, graph.ints(*shape)], shape) if repeated else total

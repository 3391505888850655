"""The front half as a program of ATen operators, none of which changes a tensor that is still read."""

import operator
import warnings
from collections.abc import Container
from typing import Any

import torch
from torch import fx, nn
from torch._dynamo.exc import UserError
from torch._ops import OpOverload

from edgekit.errors import ExportError
from edgekit.export.graph import BATCH, Shape
from edgekit.export.lowerings.call import describe, plain
from edgekit.export.lowerings.shape import SAME


def exported(front: nn.Module, shape: Shape, known: Container[Any]) -> torch.export.ExportedProgram:
    """`front` in evaluation mode on images of `shape` (C,H,W), the batch dynamic.

    Where an operator is not `known`, or changes in place a tensor that another one may read, torch decomposes the
    program into other operators; only then, since that takes longer than all the rest. ExportError when torch refuses,
    and for weights that are not float32.
    """
    for name, weight in (*front.named_parameters(), *front.named_buffers()):
        if weight.dtype != torch.float32 and (weight.is_floating_point() or weight.is_complex()):
            raise ExportError(f"weight '{name}' is {plain(weight.dtype)}, expected float32: call .float() on it")
    sample = torch.zeros(2, *shape)
    with warnings.catch_warnings():
        # Warnings of torch about its own code, and about the cost of a padding that is never computed.
        warnings.filterwarnings("ignore", ".*treespec", FutureWarning)
        warnings.filterwarnings("ignore", "Using padding='same'", UserWarning)
        try:
            program = torch.export.export(front.eval(), (sample,), dynamic_shapes=({0: torch.export.Dim("n")},))
            if not all(_settled(node, known) for node in program.graph.nodes):
                program = program.run_decompositions({})
        except UserError as error:
            raise ExportError(
                f"the front half does not take batches of any size: {_line(error, 1)}. Keep the batch the first "
                "dimension of every tensor, and write x.shape[0] where its size is needed"
            ) from None
        except RuntimeError as error:
            raise ExportError(
                f"torch.export refuses the front half on images {describe((BATCH, *shape))}: {_line(error, 0)}. Its "
                "forward must run on such images and not branch on values; cut before the layer where it does"
            ) from None
    return program


def functional(target: Any) -> Any:
    """`target`, or the operator without side effect that computes the same: relu for relu_."""
    if not isinstance(target, OpOverload) or not target._schema.is_mutable:
        return target
    packet = getattr(torch.ops.aten, target._schema.name.removeprefix("aten::")[:-1], None)
    return getattr(packet, target._overloadname, target)


def has_tensors(node: fx.Node) -> bool:
    """Whether `node` computes tensors, not a number such as a size."""
    value = node.meta["val"]
    return all(isinstance(v, torch.Tensor) for v in (value if isinstance(value, list | tuple) else [value]))


def _settled(node: fx.Node, known: Container[Any]) -> bool:
    """Whether `node` can be lowered: its operator is `known`, and what it changes in place no other node reads."""
    if node.op != "call_function" or node.target is operator.getitem or not has_tensors(node):
        return True
    return functional(node.target) in known and (functional(node.target) is node.target or _alone(node.args[0]))


def _alone(value: Any) -> bool:
    """Whether `value` has one reader, and no other tensor shares its memory."""
    if not isinstance(value, fx.Node) or len(value.users) != 1 or not isinstance(value.target, OpOverload):
        return False
    if functional(value.target) is not value.target:
        return _alone(value.args[0])
    # Some operators in SAME return their input itself, which their schema does not say.
    return value.target not in SAME and not any(r.alias_info for r in value.target._schema.returns)


def _line(error: RuntimeError, number: int) -> str:
    lines = [line.strip(" -.") for line in str(error).splitlines() if line.strip()]
    return lines[min(number, len(lines) - 1)] if lines else type(error).__name__

"""BoardRule: one demand of a board's converter, what it is in words and how a graph is held to it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx

from edgekit.export.targets.view import Unknown, View

#: The end of most messages.
CUT = "cut before this layer or choose another device"


class Fault(NamedTuple):
    """What breaks a rule: a node, an "input", "output" or "initialiser"; both names are empty for the whole graph."""

    name: str
    operator: str
    message: str


class BoardRule(NamedTuple):
    """`what` fits into one line."""

    what: str
    check: Callable[[View], Iterator[Fault]]


def told(got: str, expected: str, remedy: str) -> str:
    """The message of a fault."""
    return f"got {got}, expected {expected}: {remedy}"


def at(node: onnx.NodeProto, message: str) -> Fault:
    return Fault(node.name or node.output[0], node.op_type, message)


def each(check: Callable[[View, onnx.NodeProto], str | None], *operators: str) -> Callable[[View], Iterator[Fault]]:
    """The faults that `check` finds in the nodes of `operators` (none named: in every node).

    What cannot be judged because a type or shape is unknown is a fault as well.
    """

    def faults(view: View) -> Iterator[Fault]:
        for node in view.nodes:
            if not operators or node.op_type in operators:
                try:
                    message = check(view, node)
                except Unknown as unknown:
                    message = told(unknown.got, unknown.expected, CUT)
                if message:
                    yield at(node, message)

    return faults

"""BoardRule: what a board's converter demands of a graph, in words and as a check."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx

from edgekit.export.targets.view import Unknown, View

#: The remedy at the end of most messages.
CUT = "cut before this layer or choose another device"


class Fault(NamedTuple):
    """One place where a graph breaks a board rule.

    `name` is a node's, and `operator` its operator; or `name` is a tensor's, and `operator` is "input", "output" or
    "initialiser". Both are empty where the graph as a whole breaks the rule.
    """

    name: str
    operator: str
    message: str


class BoardRule(NamedTuple):
    """`what` a converter demands, in one line, and the `check` that gives the faults of a graph."""

    what: str
    check: Callable[[View], Iterator[Fault]]


def told(got: str, expected: str, remedy: str) -> str:
    """The message of a fault, in the form of all messages of board rules."""
    return f"got {got}, expected {expected}: {remedy}"


def at(node: onnx.NodeProto, message: str) -> Fault:
    """A fault of `node`, which is called by its first output where it has no name."""
    return Fault(node.name or node.output[0], node.op_type, message)


def each(check: Callable[[View, onnx.NodeProto], str | None], *operators: str) -> Callable[[View], Iterator[Fault]]:
    """The check of a BoardRule that does `check` at each node of `operators` (none named: at every node).

    Where `check` needs a type or a shape that is not known, that is a fault as well.
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

"""Cuts a network in two behind a named layer, whose output is the only tensor that passes from front to back."""

import operator
from collections.abc import Iterator

from torch import fx, nn

from edgekit.errors import ExportError, UnknownName

#: Targets of nodes that read a tensor's shape.
SIZES = {getattr, operator.getitem, "size", "dim"}


def split(model: nn.Module, cut: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Front and back half of `model`, cut after layer `cut` (a name from ``model.named_modules()``).

    Both share `model`'s parameters and keep their names. UnknownName for a layer that does not exist; ExportError,
    naming the tensors, when more than one tensor passes there.
    """
    traced = _trace(model)
    last = last_nodes(traced)
    if cut not in last:
        if cut in dict(model.named_modules()):
            raise ExportError(f"layer '{cut}' is not called in forward, so nothing can be cut after it")
        raise UnknownName("layer", cut, last, f"layers that can be cut at: {', '.join(cut_points(model))}")
    node = last[cut]
    front = _ancestors(node)
    passing = crossing(traced, front)
    if passing != [node]:
        raise ExportError(
            f"cannot cut at '{cut}': {len(passing)} tensors pass there ({', '.join(map(_describe, passing))}), "
            f"expected the output of '{cut}' alone; cut behind a layer whose output is all that the rest reads: "
            f"{', '.join(cut_points(model))}"
        )
    if not (set(traced.graph.nodes) - front - {_output(traced)}):
        raise ExportError(f"cannot cut at '{cut}': it is the last layer, nothing is left for the server to train")
    halves = _half(traced, front, None, node), _half(traced, set(traced.graph.nodes) - front, node, None)
    first, second = (dict(half.named_parameters(remove_duplicate=False)) for half in halves)
    shared = [name for name, weight in first.items() if any(weight is other for other in second.values())]
    if shared:
        raise ExportError(
            f"cannot cut at '{cut}': weights {', '.join(shared)} are used on both sides, and device and server would "
            "train copies that drift apart; cut where all that share them are on one side"
        )
    return halves


def cut_points(model: nn.Module) -> list[str]:
    """Names of the layers that `split` accepts, in order of computation."""
    return list(_cut_points(_trace(model)))


def _cut_points(traced: fx.GraphModule) -> Iterator[str]:
    for name, node in last_nodes(traced).items():
        front = _ancestors(node)
        if crossing(traced, front) == [node] and set(traced.graph.nodes) - front - {_output(traced)}:
            yield name


def _trace(model: nn.Module) -> fx.GraphModule:
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise ExportError(f"layer '{name}' is a SyncBatchNorm, for training in several processes: use BatchNorm2d")
    try:
        traced = fx.symbolic_trace(model)
    except Exception as error:  # whatever the user's forward raises
        raise ExportError(
            f"{type(model).__name__} cannot be traced by torch.fx: {type(error).__name__}: {error}. Its forward must "
            "not branch on values; move such code out of forward, or wrap it with torch.fx.wrap"
        ) from error
    # Unused items of `n, c, h, w = x.shape` would count as tensors that pass. Other unused nodes may work in place.
    traced.graph.eliminate_dead_code(lambda node: node.target not in SIZES)
    return traced


def last_nodes(traced: fx.GraphModule) -> dict[str, fx.Node]:
    """Layer name -> the last node computed inside it."""
    last: dict[str, fx.Node] = {}
    for node in traced.graph.nodes:
        for layer in node.meta.get("nn_module_stack", {}):
            last.pop(layer, None)
            last[layer] = node
    last.pop("", None)
    return last


def crossing(traced: fx.GraphModule, front: set[fx.Node]) -> list[fx.Node]:
    """Nodes of `front` whose value is used outside it."""
    return [node for node in traced.graph.nodes if node in front and any(user not in front for user in node.users)]


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen, todo = {node}, [node]
    while todo:
        for parent in todo.pop().all_input_nodes:
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return seen


def _half(
    traced: fx.GraphModule, nodes: set[fx.Node], feature: fx.Node | None, output: fx.Node | None
) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if feature is not None:
        copies[feature] = graph.placeholder("feature")
    for node in traced.graph.nodes:
        if node in nodes:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    if output is not None:
        graph.output(copies[output])
    graph.lint()
    return fx.GraphModule(traced, graph)


def _output(traced: fx.GraphModule) -> fx.Node:
    (output,) = traced.graph.find_nodes(op="output")
    assert isinstance(output, fx.Node)
    return output


def _describe(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    if node.op == "placeholder":
        return f"the input '{node.name}'"
    return f"'{next(reversed(stack))}'" if stack else f"{node.name} ({getattr(node.target, '__name__', node.target)})"

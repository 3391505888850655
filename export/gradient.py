"""Reverse-mode differentiation over ONNX nodes, into ONNX nodes.

`differentiate` walks the front graph backwards and appends, for every node on the way from a weight to the feature,
the nodes that compute the gradients of its inputs. Each operator has one rule in `RULES`; an operator without one is
refused by name. The nodes are plain operators of opset 15 that ONNX Runtime 1.10 and later run on any CPU.
"""

from collections.abc import Callable, Iterable
from typing import Any

import onnx
from onnx import helper

from edgekit.errors import ExportError
from edgekit.export.graph import Graph
from edgekit.export.rules import conv, norm, pointwise, pool

#: (graph, node, attributes, gradient of the first output, which inputs need one) -> gradient per input, or None
Rule = Callable[[Graph, onnx.NodeProto, dict[str, Any], str, list[bool]], list[str | None]]
RULES: dict[str, Rule] = {
    "Add": pointwise.add,
    "BatchNormalization": norm.batch_norm,
    "Clip": pointwise.clip,
    "Conv": conv.conv,
    "Gather": pointwise.gather,
    "MaxPool": pool.max_pool,
    "Relu": pointwise.relu,
}


def differentiate(graph: Graph, output: str, gradient: str, weights: Iterable[str]) -> dict[str, str]:
    """Appends the nodes for d loss / d weight, given `gradient`, the tensor that holds d loss / d `output`.

    Returns weight name -> name of its gradient. ExportError for an operator without a rule, and for a weight that
    does not reach `output`.
    """
    weights = list(weights)
    depends = set(weights)
    forward = list(graph.nodes)
    for node in forward:
        if depends & set(node.input):
            depends |= set(node.output)
    gradients = {output: gradient}
    for node in reversed(forward):
        upstream = gradients.get(node.output[0])
        needed = [name in depends for name in node.input]
        if upstream is None or not any(needed):
            continue
        if node.op_type not in RULES:
            raise ExportError(
                f"layer '{graph.layers[node.name]}': operator {node.op_type} (node {node.name}) has no gradient rule; "
                f"there are rules for {', '.join(sorted(RULES))}; cut before this layer"
            )
        graph.in_layer(graph.layers[node.name])
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for name, new in zip(node.input, RULES[node.op_type](graph, node, attributes, upstream, needed), strict=True):
            if new is not None:
                known = gradients.get(name)
                gradients[name] = graph.op("Add", [known, new], graph.shape(name)) if known else new
    missing = [name for name in weights if name not in gradients]
    if missing:
        raise ExportError(f"weights {', '.join(missing)} do not reach the cut, so they cannot be trained there")
    return {name: gradients[name] for name in weights}

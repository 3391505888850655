"""Reverse-mode differentiation over ONNX nodes, into ONNX nodes.

`differentiate` walks the front graph backwards and appends, for every node on the way from a weight to the feature,
the nodes that compute the gradients of its inputs. Each operator has one gradient rule in `GRADIENT_RULES`. An operator
without a rule is refused by name, and so is an input whose gradient is wanted but that the rule gives none for. The
nodes are operators of opset 15, which ONNX Runtime 1.10 and later run on any CPU.

Shapes are static but for the batch, which is the first dimension of every tensor that has one.
"""

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import helper

from edgekit.errors import ExportError
from edgekit.export.gradients import activation, arithmetic, conv, layout, matrix, norm, pool
from edgekit.export.gradients.step import GradientRule, Step
from edgekit.export.graph import BATCH, Graph

#: ONNX operator -> what adds the nodes of its gradient.
GRADIENT_RULES: dict[str, GradientRule] = {
    "Add": arithmetic.add,
    "AveragePool": pool.average_pool,
    "BatchNormalization": norm.batch_norm,
    "Clip": activation.clip,
    "Concat": layout.concat,
    "Conv": conv.conv,
    "ConvTranspose": conv.conv_transpose,
    "Div": arithmetic.div,
    "Elu": activation.elu,
    "Erf": arithmetic.erf,
    "Exp": arithmetic.exp,
    "Gather": layout.gather,
    "Gemm": matrix.gemm,
    "GlobalAveragePool": pool.global_average_pool,
    "HardSigmoid": activation.hard_sigmoid,
    "Identity": layout.identity,
    "LeakyRelu": activation.leaky_relu,
    "MatMul": matrix.matmul,
    "MaxPool": pool.max_pool,
    "Mul": arithmetic.mul,
    "Neg": arithmetic.neg,
    "PRelu": activation.prelu,
    "Pad": layout.pad,
    "ReduceMean": pool.reduce_mean,
    "Relu": activation.relu,
    "Reshape": layout.reshape,
    "Sigmoid": activation.sigmoid,
    "Slice": layout.slice_of,
    "Softmax": activation.softmax,
    "Split": layout.split,
    "Sqrt": arithmetic.sqrt,
    "Sub": arithmetic.sub,
    "Tanh": activation.tanh,
    "Transpose": layout.transpose,
}


def differentiate(graph: Graph, output: str, gradient: str, weights: Iterable[str]) -> dict[str, str]:
    """Appends the nodes for d loss / d weight, given `gradient`, the tensor that holds d loss / d `output`.

    Returns weight name -> name of its gradient. ExportError for what has no gradient rule, and for a weight that
    `output` does not depend on.
    """
    weights = list(weights)
    depends = set(weights)
    forward = list(graph.nodes)
    for node in forward:
        if depends & set(node.input):
            # Integers (shapes, indices) carry no gradient.
            depends |= {name for name in node.output if graph.specs[name].dtype.startswith("float")}
    # A node that both parts need is computed twice rather than kept in memory in between.
    graph.start_part()
    gradients = {output: gradient}
    for node in reversed(forward):
        upstream = [gradients.get(name) for name in node.output]
        needed = [name in depends for name in node.input]
        if not any(upstream) or not any(needed):
            continue
        graph.in_layer(graph.layers[node.name])
        for name, new in _backward(Step(graph, node, _attributes(node), upstream, needed)).items():
            known = gradients.get(name)
            gradients[name] = graph.op("Add", [known, new], graph.shape(name)) if known else new
    missing = [name for name in weights if name not in gradients]
    if missing:
        raise ExportError(
            f"weights {', '.join(missing)} do not reach the cut, so the device cannot train them: take them out of the "
            "front half, or set requires_grad=False on them"
        )
    return {name: gradients[name] for name in weights}


def _backward(step: Step) -> dict[str, str]:
    """Input -> the gradient that reaches it through this node, for the inputs that need one."""
    node, graph = step.node, step.graph
    if node.op_type not in GRADIENT_RULES:
        rules = ", ".join(sorted(GRADIENT_RULES))
        raise step.refuse(f"has no gradient rule; there are gradient rules for {rules}; cut before this layer")
    for name in filter(None, [*node.input, *node.output]):
        if BATCH in graph.shape(name)[1:]:
            raise step.refuse(
                f"has the batch in a dimension of '{name}' {list(graph.shape(name))} that is not the first, for which "
                "there is no gradient rule: keep it first, or cut before this layer"
            )
    computed = list(GRADIENT_RULES[node.op_type](step))
    computed += [None] * (len(node.input) - len(computed))
    grads: dict[str, str] = {}
    for name, new, need in zip(node.input, computed, step.needed, strict=True):
        if need and new is None:
            raise step.refuse(f"has no gradient rule for its input '{name}': make that a constant")
        if need and new:
            grads[name] = graph.op("Add", [grads[name], new], graph.shape(name)) if name in grads else new
    return grads


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}

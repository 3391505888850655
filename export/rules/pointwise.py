"""Gradients of operators that work element by element, or move elements about."""

from typing import Any

import numpy as np
import onnx

from edgekit.errors import ExportError
from edgekit.export.graph import Graph


def relu(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    zero = graph.constant(np.array(0.0, dtype=np.float32))
    on = graph.op("Greater", [node.output[0], zero], graph.shape(g), dtypes=["bool"])
    # Cast and Mul are vectorised in ONNX Runtime, Where is not.
    return [graph.op("Mul", [g, graph.op("Cast", [on], graph.shape(g), to=onnx.TensorProto.FLOAT)], graph.shape(g))]


def clip(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    zero, shape = graph.constant(np.array(0.0, dtype=np.float32)), graph.shape(g)
    above = graph.op("Greater", [node.output[0], node.input[1]], shape, dtypes=["bool"])
    below = graph.op("Less", [node.output[0], node.input[2]], shape, dtypes=["bool"])
    return [graph.op("Where", [graph.op("And", [above, below], shape, dtypes=["bool"]), g, zero], shape), None, None]


def add(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    return [g if need else None for need in needed]


def gather(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    order = graph.constants[node.input[1]]
    if a["axis"] != 1 or not np.array_equal(np.sort(order), np.arange(graph.shape(node.input[0])[1])):
        raise ExportError(f"node {node.name}: only a Gather that reorders channels has a gradient rule")
    return [graph.op("Gather", [g, graph.constant(np.argsort(order))], graph.shape(g), axis=1), None]

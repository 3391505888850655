"""Simulates, in ONNX Runtime, which codes change when an engine compares distances in float16.

Boards whose ArgMin is float16 round the feature and the codebook, the product of both, and every score on the way to
the ArgMin; sums inside a product stay wide, as they do in the engines' accumulators.
"""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.parity.golden import run_graph
from edgekit.tensors import TensorSpec


class HalfScores(NamedTuple):
    """Codes with float16 scores beside those with float32 ones. Errors are relative to the norm of the feature."""

    codes: int
    flips: int
    #: |decoded with float16 scores - decoded with float32 scores|
    change: float
    #: |decoded - feature|, the quantisation error, with float32 and with float16 scores
    error: float
    error_float16: float


def simulate(
    model: bytes, spec: GraphSpec, codec: FeatureCodec, tables: Arrays, feature: tuple[int, ...], image: np.ndarray
) -> HalfScores | None:
    """Codes of `model`, a deployed graph, for `image` (n,C,H,W) f32 with float16 scores; None when it has no ArgMin.

    `feature` (C,h,w) is the shape at the cut.
    """
    proto = onnx.load_from_string(model)
    scored = round_scores(proto)
    if scored is None:
        return None
    batch = spec.inputs[0].shape[0]
    seen = TensorSpec(scored, "float32", (batch, *feature))
    proto.graph.output.append(helper.make_tensor_value_info(scored, TensorProto.FLOAT, ["n", *feature]))
    held, feeds = codec.table_feeds(tables), {"image": image}
    wide = run_graph(model, spec, held, feeds)
    half = run_graph(proto.SerializeToString(), spec._replace(outputs=(*spec.outputs, seen)), held, feeds)
    exact = half.pop(scored)
    decoded, decoded_half = codec.dequantize(wide, tables), codec.dequantize(half, tables)
    return HalfScores(
        wide["codes"].size,
        int((wide["codes"] != half["codes"]).sum()),
        relative(decoded_half - decoded, exact),
        relative(decoded - exact, exact),
        relative(decoded_half - exact, exact),
    )


def relative(difference: np.ndarray, whole: np.ndarray) -> float:
    """|difference| / |whole|; 0 when both vanish."""
    size, of = float(np.linalg.norm(difference.ravel())), float(np.linalg.norm(whole.ravel()))
    return size / of if of else 0.0 if size == 0 else float("inf")


def round_scores(model: onnx.ModelProto) -> str | None:
    """Changes `model` so that its scores, and all that they are computed from, are rounded to float16.

    Scores are what the ArgMin compares. Returns the name of the tensor that is scored, the feature in coded order. When
    there is no ArgMin, returns None and changes nothing.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    found = [node for node in model.graph.node if node.op_type == "ArgMin"]
    if not found:
        return None
    scoring, todo, feature = {found[-1].output[0]}, [found[-1].input[0]], ""
    while todo:
        name = todo.pop()
        if name not in makers:
            continue
        node = makers[name]
        scoring.add(name)
        if node.op_type == "Conv":
            feature = node.input[0]
        elif node.op_type == "MatMul":
            feature = makers[node.input[1]].input[0]  # the encoder's Reshape to rows
        else:
            todo += node.input
    nodes, rounded = [], {}
    for node in model.graph.node:
        if node.output[0] in scoring:
            # The second input of a Reshape is a shape.
            for i in range(1 if node.op_type == "Reshape" else len(node.input)):
                name = node.input[i]
                if name not in rounded:
                    half, rounded[name] = f"{name}/float16", f"{name}/rounded"
                    nodes.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
                    nodes.append(helper.make_node("Cast", [half], [rounded[name]], to=TensorProto.FLOAT))
                node.input[i] = rounded[name]
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return feature

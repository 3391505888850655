"""The quantise stage of uniform: scale by the range of the batch, add a half, cut to integers."""

import numpy as np
from onnx import TensorProto

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.uniform import SMALLEST_RANGE, Uniform
from edgekit.export.graph import Graph


def encode(graph: Graph, feature: str, codec: Uniform, tables: Arrays, scores: str) -> None:
    """Adds "codes" (n,C,h,w) int32, "low" (1,) and "high" (1,) f32; the casts cut off, as numpy's do."""
    low, high = (
        graph.add(
            "Reshape",
            [graph.op(op, [feature], (1, 1, 1, 1), axes=[0, 1, 2, 3], keepdims=1), graph.ints(1)],
            (1,),
            outputs=[name],
        )[0]
        for op, name in (("ReduceMin", "low"), ("ReduceMax", "high"))
    )
    width = graph.op("Max", [graph.op("Sub", [high, low], (1,)), graph.constant(np.array([SMALLEST_RANGE]))], (1,))
    scale = graph.op("Div", [graph.constant(np.array([codec.levels])), width], (1,))
    shape = graph.shape(feature)
    steps = graph.op("Mul", [graph.op("Sub", [feature, low], shape), scale], shape)
    rounded = graph.op("Add", [steps, graph.constant(np.array([0.5], dtype=np.float32))], shape)
    graph.add("Cast", [rounded], shape, dtypes=["int32"], outputs=["codes"], to=TensorProto.INT32)


def largest(codec: Uniform, feature: np.ndarray, tables: Arrays) -> float:
    """The largest magnitude in `feature`, or the number of levels."""
    return float(max(np.abs(feature).max(), codec.levels))

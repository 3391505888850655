"""The quantise stage of sgq and product: squared distances to the codewords, then ArgMin.

``|z - e|^2 / 2 = |z|^2 / 2 + (|e|^2 / 2 - z.e)``, and the first term is the same for every codeword. The score is a
grouped 1x1 convolution with weight -e and bias |e|^2 / 2 (-s*e and s.e*e / 2 where channels weigh s), or, for
converters whose convolutions take constant weights only, the same as a product of matrices. Both tables can change
without a new graph.
"""

import numpy as np
from onnx import TensorProto

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.sgq import SGQ
from edgekit.export.graph import Graph


def encode(graph: Graph, feature: str, codec: SGQ, tables: Arrays, scores: str) -> None:
    """Adds "codes" (n,G,h,w) int32 and the tables "codebook_weight" and "codebook_bias"."""
    n, _, h, w = graph.shape(feature)
    feeds = codec.table_feeds(tables)
    weight, bias = (graph.weight(name, feeds[name]) for name in ("codebook_weight", "codebook_bias"))
    groups, words = codec.groups, codec.words
    if scores == "conv":
        score = graph.op(
            "Conv", [feature, weight, bias], (n, groups * words, h, w),
            kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=groups,
        )  # fmt: skip
        split = graph.op("Reshape", [score, graph.ints(-1, groups, words, h, w)], (n, groups, words, h, w))
        nearest = graph.op("ArgMin", [split], (n, groups, h, w), dtypes=["int64"], axis=2, keepdims=0)
    else:
        size = graph.shape(weight)[1]
        rows = graph.op("Reshape", [feature, graph.ints(-1, groups, size, h * w)], (n, groups, size, h * w))
        books = graph.op("Reshape", [weight, graph.ints(1, groups, words, size)], (1, groups, words, size))
        half = graph.op("Reshape", [bias, graph.ints(1, groups, words, 1)], (1, groups, words, 1))
        product = graph.op("MatMul", [books, rows], (n, groups, words, h * w))
        score = graph.op("Add", [product, half], (n, groups, words, h * w))
        flat = graph.op("ArgMin", [score], (n, groups, h * w), dtypes=["int64"], axis=2, keepdims=0)
        nearest = graph.op("Reshape", [flat, graph.ints(-1, groups, h, w)], (n, groups, h, w), dtypes=["int64"])
    graph.add("Cast", [nearest], (n, groups, h, w), dtypes=["int32"], outputs=["codes"], to=TensorProto.INT32)


def largest(codec: SGQ, feature: np.ndarray, tables: Arrays) -> float:
    """An upper bound of the |score|s of `feature` (n,C,h,w) f32, its channels in coded order."""
    bounds = [
        np.linalg.norm(points, axis=1).max() * np.linalg.norm(weighted, axis=1).max() + bias.max()
        for points, weighted, bias in zip(codec.stripes(feature), *codec.scoring(tables), strict=True)
    ]
    return float(max(bounds))

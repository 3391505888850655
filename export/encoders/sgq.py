"""sgq in the graph: squared distances by one grouped 1x1 convolution, then ArgMin.

``|z - e|^2 / 2 = |z|^2 / 2 + (|e|^2 / 2 - z.e)``, and the first term is the same for every codeword, so the score is
a convolution with weight -e and bias |e|^2 / 2. Both are inputs of the graph: new codebooks need no new engine.
"""

from onnx import TensorProto

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.export.graph import Graph
from edgekit.tensors import TensorSpec


def encode(graph: Graph, feature: str, codec: FeatureCodec, tables: Arrays) -> None:
    """Adds "codes" (n,G,h,w) int32 and the inputs "codebook_weight" and "codebook_bias"."""
    assert isinstance(codec, SGQ)
    n, _, h, w = graph.shape(feature)
    feeds = codec.table_feeds(tables)
    weight, bias = (graph.input(TensorSpec(name, value.dtype.name, value.shape)) for name, value in feeds.items())
    rows = codec.groups * codec.words
    score = graph.op(
        "Conv", [feature, weight, bias], (n, rows, h, w),
        kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=codec.groups,
    )  # fmt: skip
    split = graph.op(
        "Reshape", [score, graph.ints(0, codec.groups, codec.words, h, w)], (n, codec.groups, codec.words, h, w)
    )
    nearest = graph.op("ArgMin", [split], (n, codec.groups, h, w), dtypes=["int64"], axis=2, keepdims=0)
    graph.add("Cast", [nearest], (n, codec.groups, h, w), dtypes=["int32"], outputs=["codes"], to=TensorProto.INT32)

"""Puts channels of a graph in the codec's order: by the order of filters where that is possible, else by a Gather."""

import numpy as np
from onnx import NodeProto, TensorProto

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.graph import Graph

#: Operators that compute each output channel from the same channel of their one input, all channels alike.
CHANNELWISE = {
    "AveragePool", "Clip", "Elu", "Erf", "Exp", "GlobalAveragePool", "HardSigmoid", "Identity", "LeakyRelu", "MaxPool",
    "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh",
}  # fmt: skip

#: Tables of the order and of its inverse, of codecs whose order may change while a device learns.
ORDER, ORDER_BACK = "codebook_order", "codebook_order_back"


def fold_order(graph: Graph, feature: str, codec: FeatureCodec, tables: Arrays) -> tuple[str, ...]:
    """Puts the channels of `feature` (n,C,h,w) in coded order by reordering filters of the convolutions before it.

    Returns the weights whose first axis is in that order from now on. Returns () and changes nothing when the order
    stays, or when filters alone cannot change it (`ordered` can). The search goes back from the feature, over operators
    on single channels and depthwise convolutions, to a convolution of all channels; no other node may read a tensor
    or a weight on this way.
    """
    order = codec.order(graph.shape(feature)[1], tables)
    if ORDER not in codec.table_feeds(tables) and _stays(order):
        return ()
    made = {name: node for node in graph.nodes for name in node.output}
    readers = [name for node in graph.nodes for name in node.input]
    names: list[str] = []
    while (node := made.get(feature)) is not None and len(node.output) == 1:
        if node.op_type == "Conv":
            weights = list(node.input[1:])
            # Only weights, each read once, can be replaced when the order changes.
            if not all(name in graph.weights and readers.count(name) == 1 for name in weights):
                return ()
            names += weights
            if _groups(node) == 1:
                graph.weights.update({name: graph.weights[name][order] for name in names})
                return tuple(names)
            if not _groups(node) == graph.shape(feature)[1] == graph.shape(node.input[0])[1]:
                return ()
        elif node.op_type not in CHANNELWISE:
            return ()
        feature = node.input[0]
        if readers.count(feature) != 1:
            return ()
    return ()


def ordered(graph: Graph, x: str, codec: FeatureCodec, tables: Arrays, back: bool = False) -> str:
    """`x` (n,C,h,w) with its channels in coded order, or `back` in the network's.

    The order is a constant, or comes from the codec's table where it has one for this. That table is float32, since
    inputs and refitted initialisers cannot be integers, and is cast, since indices cannot be floats.
    """
    order = codec.order(graph.shape(x)[1], tables)
    name, feeds = ORDER_BACK if back else ORDER, codec.table_feeds(tables)
    if name in feeds:
        indices = graph.add(
            "Cast", [graph.weight(name, feeds[name])], order.shape, dtypes=["int32"], to=TensorProto.INT32
        )
        return graph.op("Gather", [x, *indices], graph.shape(x), axis=1)
    if _stays(order):
        return x
    return graph.op("Gather", [x, graph.constant(np.argsort(order) if back else order)], graph.shape(x), axis=1)


def _stays(order: np.ndarray) -> bool:
    return np.array_equal(order, np.arange(len(order)))


def _groups(conv: NodeProto) -> int:
    return next((attribute.i for attribute in conv.attribute if attribute.name == "group"), 1)

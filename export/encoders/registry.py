"""The quantise stage of each feature codec as graph nodes, by codec id."""

from collections.abc import Callable

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.encoders import raw, sgq, uniform
from edgekit.export.graph import Graph

#: (graph, feature in coded order, codec, tables) -> nothing; the codec's codes become tensors of the graph.
ENCODERS: dict[str, Callable[[Graph, str, FeatureCodec, Arrays], None]] = {
    "raw": raw.encode,
    "uniform": uniform.encode,
    "sgq": sgq.encode,
}

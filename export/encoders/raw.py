"""raw in the graph: the feature itself."""

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.graph import Graph


def encode(graph: Graph, feature: str, codec: FeatureCodec, tables: Arrays) -> None:
    """Adds "codes" = `feature`."""
    graph.add("Identity", [feature], graph.shape(feature), outputs=["codes"])

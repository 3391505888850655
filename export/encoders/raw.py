"""The quantise stage of raw, and of topk: the feature itself."""

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.graph import Graph


def encode(graph: Graph, feature: str, codec: FeatureCodec, tables: Arrays, scores: str) -> None:
    """Adds "codes" = `feature`."""
    graph.add("Identity", [feature], graph.shape(feature), outputs=["codes"])


def largest(codec: FeatureCodec, feature: np.ndarray, tables: Arrays) -> float:
    """The largest magnitude in `feature`."""
    return float(np.abs(feature).max())

"""The quantise stage of slicing: the leading channels of the feature."""

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.slicing import Slicing
from edgekit.export.graph import Graph


def encode(graph: Graph, feature: str, codec: Slicing, tables: Arrays, scores: str) -> None:
    """Adds "codes" (n,k,h,w) f32; a Slice, since the order of channels is in `feature` already."""
    n, channels, h, w = graph.shape(feature)
    kept = codec.kept(channels)
    window = [graph.ints(0), graph.ints(kept), graph.ints(1), graph.ints(1)]
    graph.add("Slice", [feature, *window], (n, kept, h, w), outputs=["codes"])


def largest(codec: Slicing, feature: np.ndarray, tables: Arrays) -> float:
    """The largest magnitude in `feature`."""
    return float(np.abs(feature).max())

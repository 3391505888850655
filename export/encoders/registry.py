"""The quantise stage of each feature codec as graph nodes, by codec id."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.encoders import raw, sgq, slicing, uniform
from edgekit.export.graph import Graph


class Encoder(NamedTuple):
    """`encode`: (graph, feature in coded order, codec, tables, "conv" or "matmul"); the codes become tensors of the
    graph. `largest`: (codec, feature in coded order, tables) -> the largest magnitude that the stage computes."""

    encode: Callable[[Graph, str, FeatureCodec, Arrays, str], None]
    largest: Callable[[FeatureCodec, np.ndarray, Arrays], float]


ENCODERS = {
    "raw": Encoder(raw.encode, raw.largest),
    "uniform": Encoder(uniform.encode, uniform.largest),
    "sgq": Encoder(sgq.encode, sgq.largest),
    "product": Encoder(sgq.encode, sgq.largest),
    "slicing": Encoder(slicing.encode, slicing.largest),
    # Its values are picked on the CPU.
    "topk": Encoder(raw.encode, raw.largest),
}

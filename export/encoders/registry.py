"""The quantise stage of each feature codec as graph nodes, by codec id."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.export.encoders import raw, sgq, slicing, uniform
from edgekit.export.graph import Graph


class Encoder(NamedTuple):
    """How the quantise stage of one feature codec becomes nodes; each function takes a codec of that class alone."""

    #: (graph, feature in coded order, codec, tables, "conv" or "matmul"): adds the nodes, whose outputs are the codes.
    encode: Callable[[Graph, str, Any, Arrays, str], None]
    #: (codec, feature in coded order, tables): the largest magnitude that the nodes compute.
    largest: Callable[[Any, np.ndarray, Arrays], float]


ENCODERS = {
    "raw": Encoder(raw.encode, raw.largest),
    "uniform": Encoder(uniform.encode, uniform.largest),
    "sgq": Encoder(sgq.encode, sgq.largest),
    "product": Encoder(sgq.encode, sgq.largest),
    "slicing": Encoder(slicing.encode, slicing.largest),
    # The graph gives the whole feature; the values to send are picked from it on the CPU.
    "topk": Encoder(raw.encode, raw.largest),
}

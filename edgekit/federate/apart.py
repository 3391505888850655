"""Kinds of a whole network's arrays, each with a codec of its own (`edgekit.apart`): weights, statistics, scales.

Scales of filters have to arrive finer than weights. What a codec lost of them does not come later: those that are
discarded then stay where they are.
"""

from edgekit.apart import EVEN, STEP, Apart
from edgekit.codecs.base import UpdateCodec
from edgekit.codecs.registry import parse_update_codec

KINDS = ("weights", "statistics", "scales")
#: How the name of a filter's scale ends, and what the running statistics of batch norms are called in their layer.
SCALE = ":scale"
STATISTICS = ("running_mean", "running_var")
#: What statistics, where the weights' own codec does not suit them, and scales travel by unless another is asked for.
STATISTICS_CODEC, SCALES_CODEC = f"quantised:step={STEP}", "quantised:step=0.05"


def by_name(weights: str, statistics: str | None = None, scales: str = SCALES_CODEC) -> Apart:
    """Codecs that are spelled, as in "quantised:step=0.5", for a whole network. UsageError.

    `statistics` None: that of the weights where it is one of `edgekit.apart.EVEN`, else `STATISTICS_CODEC`.
    """
    own = parse_update_codec(weights)
    if statistics is None:
        statistics = weights if own.codec_id in EVEN else STATISTICS_CODEC
    return by_kind(own, parse_update_codec(statistics), parse_update_codec(scales))


def by_kind(*codecs: UpdateCodec) -> Apart:
    """Codecs for a whole network, in the order of `KINDS`."""
    return Apart(dict(zip(KINDS, codecs, strict=True)), kind_of, forget=("scales",))


def kind_of(name: str) -> str:
    """Which of `KINDS` the array `name` of a network is."""
    if name.endswith(SCALE):
        return "scales"
    return "statistics" if name.rpartition(".")[2] in STATISTICS else "weights"

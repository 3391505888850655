"""Updates of weights, of batch norms' statistics, and of scales in one payload, each kind by a codec of its own.

Statistics move by far more than weights in a round, and scales have to arrive finer: among weights they would spoil a
codec that has one magnitude for all it sends. Codecs that say every array at a precision of its own take statistics too
(`edgekit.apart`). A payload has one part (`edgekit.federate.parts`) for each kind that the
network has, in the order of `KINDS`.
"""

from typing import Any

import numpy as np

from edgekit.apart import EVEN
from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.registry import parse_update_codec
from edgekit.codecs.updates.flat import Shapes
from edgekit.federate.parts import join, split

KINDS = ("weights", "statistics", "scales")
#: How the name of a filter's scale ends, and what the running statistics of batch norms are called in their layer.
SCALE = ":scale"
STATISTICS = ("running_mean", "running_var")
#: What statistics, where the weights' own codec does not suit them, and scales travel by unless another is asked for.
STATISTICS_CODEC, SCALES_CODEC = "quantised:step=0.125", "quantised:step=0.05"


class Apart(UpdateCodec):
    """A codec for each of `KINDS`."""

    def __init__(self, weights: UpdateCodec, statistics: UpdateCodec, scales: UpdateCodec) -> None:
        self.weights, self.statistics, self.scales = weights, statistics, scales

    def codec(self, kind: str) -> UpdateCodec:
        codec: UpdateCodec = getattr(self, kind)
        return codec

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        return join([self.codec(kind).pack(arrays, rng) for kind, arrays in apart(update).items()])

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        kinds = apart(shapes)
        update: Arrays = {}
        for part, (kind, own) in zip(split(payload, len(kinds)), kinds.items(), strict=True):
            update.update(self.codec(kind).unpack(part, own))
        return update

    def formula_bits(self, shapes: Shapes) -> float:
        return sum(self.codec(kind).formula_bits(own) for kind, own in apart(shapes).items())

    def formula_bits_of(self, sent: Arrays) -> float:
        return sum(self.codec(kind).formula_bits_of(own) for kind, own in apart(sent).items())

    def sender(self, learns: bool = True) -> UpdateSender:
        return ApartSender(self, learns)


class ApartSender(UpdateSender):
    """Keeps what the senders of its codecs keep; of scales nothing: those that are discarded then stay where they are.

    Kinds may be sent one after another: their payloads, joined in the order of `KINDS`, are that of all.
    """

    def __init__(self, codec: Apart, learns: bool) -> None:
        super().__init__(codec)
        self._senders = {
            "weights": codec.weights.sender(learns), "statistics": codec.statistics.sender(learns),
            "scales": UpdateSender(codec.scales),
        }  # fmt: skip

    @property
    def state(self) -> dict[str, Any]:
        return {kind: self._senders[kind].state for kind in KINDS}

    def restore(self, state: dict[str, Any]) -> None:
        for kind, sender in self._senders.items():
            sender.restore(state[kind])

    def check(self, update: Arrays) -> None:
        for kind, arrays in apart(update).items():
            self._senders[kind].check(arrays)

    def send(self, update: Arrays, rng: np.random.Generator) -> tuple[bytes, Arrays]:
        self.check(update)
        sent = [self._senders[kind].send(arrays, rng) for kind, arrays in apart(update).items()]
        return join([part for part, _ in sent]), {name: array for _, own in sent for name, array in own.items()}


def by_name(weights: str, statistics: str | None = None, scales: str = SCALES_CODEC) -> Apart:
    """Codecs that are spelled, as in "quantised:step=0.5", for a whole network. UsageError.

    `statistics` None: that of the weights where it is one of `edgekit.apart.EVEN`, else `STATISTICS_CODEC`.
    """
    own = parse_update_codec(weights)
    if statistics is None:
        statistics = weights if own.codec_id in EVEN else STATISTICS_CODEC
    return Apart(own, parse_update_codec(statistics), parse_update_codec(scales))


def apart(named: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What `named` holds of each kind; kinds of which it holds nothing are left out."""
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for name, value in named.items():
        kinds[kind_of(name)][name] = value
    return {kind: own for kind, own in kinds.items() if own}


def kind_of(name: str) -> str:
    """Which of `KINDS` the array `name` of a network is."""
    if name.endswith(SCALE):
        return "scales"
    return "statistics" if name.rpartition(".")[2] in STATISTICS else "weights"

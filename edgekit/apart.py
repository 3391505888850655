"""Batch norms' running statistics beside weights in one payload, by a codec of their own.

In a round statistics move by far more than weights. Among weights, a codec that sends the largest values would send
little else; one that has one magnitude for all would send weights in that of the statistics; one that draws at random
would send statistics full of noise; and one whose step is that of biases would send them finer than they are known.

======  ====  =================================================
offset  size  field
======  ====  =================================================
0       4     little-endian uint32: bytes of the weights' part
4       n     the weights' part; then that of the statistics
======  ====  =================================================

An update without statistics is the weights' part alone.
"""

import struct
from typing import Any, Dict, Iterable, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.updates.flat import Shapes
from edgekit.codecs.updates.quantised import Quantised
from edgekit.errors import PayloadError

#: Codecs that say every array at a precision that goes by itself: they take statistics too.
EVEN = ("fedavg", "quantised")
#: That of statistics beside the others.
STEP = 0.125
_LENGTH = struct.Struct("<I")


def apart(codec: UpdateCodec, statistics: Iterable[str]) -> UpdateCodec:
    """`codec` for updates in which there may be `statistics`, by name."""
    return codec if codec.codec_id in EVEN else Apart(codec, tuple(statistics))


class Apart(UpdateCodec):
    """`weights` for all arrays but those named `statistics`, which go by `Quantised`."""

    def __init__(self, weights: UpdateCodec, statistics: Tuple[str, ...]) -> None:
        self.weights, self.statistics = weights, statistics
        self.other = Quantised(STEP)

    def split(self, arrays: Dict[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """`arrays`, or what else is given by their names, that are weights, and those that are statistics."""
        both: Tuple[Dict[str, Any], Dict[str, Any]] = ({}, {})
        for name, value in arrays.items():
            both[name in self.statistics][name] = value
        return both

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        weights, statistics = self.split(update)
        part = self.weights.pack(weights, rng)
        return _joined(part, self.other.pack(statistics, rng)) if statistics else part

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        weights, statistics = self.split(shapes)
        if not statistics:
            return self.weights.unpack(payload, weights)
        if len(payload) < _LENGTH.size:
            raise PayloadError("{} B, expected the length of the weights' part".format(len(payload)), len(payload))
        end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
        if end > len(payload):
            raise PayloadError("weights until byte {}, in {} B".format(end, len(payload)), 0)
        update = self.weights.unpack(payload[_LENGTH.size : end], weights)
        return dict(update, **self.other.unpack(payload[end:], statistics))

    def formula_bits(self, shapes: Shapes) -> float:
        weights, statistics = self.split(shapes)
        return self.weights.formula_bits(weights) + (self.other.formula_bits(statistics) if statistics else 0.0)

    def formula_bits_of(self, sent: Arrays) -> float:
        weights, statistics = self.split(sent)
        return self.weights.formula_bits_of(weights) + (self.other.formula_bits_of(statistics) if statistics else 0.0)

    def sender(self, learns: bool = True) -> UpdateSender:
        return ApartSender(self, learns)


class ApartSender(UpdateSender):
    """Keeps what the senders of both codecs keep."""

    def __init__(self, codec: Apart, learns: bool) -> None:
        super().__init__(codec)
        self._split = codec.split
        self._weights, self._statistics = codec.weights.sender(learns), codec.other.sender(learns)

    @property
    def state(self) -> Dict[str, Any]:
        return {"weights": self._weights.state, "statistics": self._statistics.state}

    def restore(self, state: Dict[str, Any]) -> None:
        self._weights.restore(state["weights"])
        self._statistics.restore(state["statistics"])

    def check(self, update: Arrays) -> None:
        weights, statistics = self._split(update)
        self._weights.check(weights)
        if statistics:
            self._statistics.check(statistics)

    def send(self, update: Arrays, rng: np.random.Generator) -> Tuple[bytes, Arrays]:
        self.check(update)
        weights, statistics = self._split(update)
        part, arrives = self._weights.send(weights, rng)
        if not statistics:
            return part, arrives
        other, more = self._statistics.send(statistics, rng)
        return _joined(part, other), dict(arrives, **more)


def _joined(weights: bytes, statistics: bytes) -> bytes:
    return _LENGTH.pack(len(weights)) + weights + statistics

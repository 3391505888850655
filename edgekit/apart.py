"""Kinds of arrays in one payload, each by a codec of its own: weights, and batch norms' running statistics beside them.

In a round statistics move by far more than weights. Among weights, a codec that sends the largest values would send
little else; one that has one magnitude for all would send weights in that of the statistics; one that draws at random
would send statistics full of noise; and one whose step is that of biases would send them finer than they are known.
Codecs that say every array at a precision of its own (`EVEN`) take statistics too.
"""

from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.updates.flat import Shapes
from edgekit.codecs.updates.quantised import Quantised
from edgekit.parts import join, split

#: Codecs that say every array at a precision that goes by itself: they take statistics too.
EVEN = ("fedavg", "quantised")
#: That of statistics beside the others.
STEP = 0.125


def apart(codec: UpdateCodec, statistics: Iterable[str]) -> UpdateCodec:
    """`codec` for updates in which there may be `statistics`, by name."""
    if codec.codec_id in EVEN:
        return codec
    names = frozenset(statistics)
    return Apart(
        {"weights": codec, "statistics": Quantised(STEP)}, lambda name: "statistics" if name in names else "weights"
    )


class Apart(UpdateCodec):
    """A codec for each kind of arrays: `codecs` by kind, and `kind_of` says of which kind an array is, by its name.

    A payload has a part (`edgekit.parts`) for each kind of which there are arrays, in the order of `codecs`. Senders
    keep nothing of the kinds that they are to `forget`.
    """

    def __init__(
        self, codecs: Dict[str, UpdateCodec], kind_of: Callable[[str], str], forget: Sequence[str] = ()
    ) -> None:
        self.codecs, self.kind_of, self.forget = codecs, kind_of, forget

    def apart(self, named: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
        """What `named` holds of each kind; kinds of which it holds nothing are left out."""
        kinds: Dict[str, Dict[str, Any]] = {kind: {} for kind in self.codecs}
        for name, value in named.items():
            kinds[self.kind_of(name)][name] = value
        return {kind: own for kind, own in kinds.items() if own}

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        return join([self.codecs[kind].pack(own, rng) for kind, own in self.apart(update).items()])

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        kinds = self.apart(shapes)
        update: Arrays = {}
        for part, (kind, own) in zip(split(payload, len(kinds)), kinds.items()):
            update.update(self.codecs[kind].unpack(part, own))
        return update

    def formula_bits(self, shapes: Shapes) -> float:
        return sum(self.codecs[kind].formula_bits(own) for kind, own in self.apart(shapes).items())

    def formula_bits_of(self, sent: Arrays) -> float:
        return sum(self.codecs[kind].formula_bits_of(own) for kind, own in self.apart(sent).items())

    def sender(self, learns: bool = True) -> UpdateSender:
        return ApartSender(self, learns)


class ApartSender(UpdateSender):
    """Keeps what the senders of its codecs keep.

    Kinds may be sent one after another: their payloads, in the order of the codecs, are together that of all.
    """

    def __init__(self, codec: Apart, learns: bool) -> None:
        super().__init__(codec)
        self._apart = codec.apart
        self._senders = {
            kind: UpdateSender(own) if kind in codec.forget else own.sender(learns)
            for kind, own in codec.codecs.items()
        }

    @property
    def state(self) -> Dict[str, Any]:
        return {kind: sender.state for kind, sender in self._senders.items()}

    def restore(self, state: Dict[str, Any]) -> None:
        for kind, sender in self._senders.items():
            sender.restore(state[kind])

    def check(self, update: Arrays) -> None:
        for kind, own in self._apart(update).items():
            self._senders[kind].check(own)

    def send(self, update: Arrays, rng: np.random.Generator) -> Tuple[bytes, Arrays]:
        self.check(update)
        parts: List[bytes] = []
        arrives: Arrays = {}
        for kind, own in self._apart(update).items():
            part, came = self._senders[kind].send(own, rng)
            parts.append(part)
            arrives.update(came)
        return join(parts), arrives

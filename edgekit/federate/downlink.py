"""The server's end of weights that go down as updates: what left it, and what each client lacks of it."""

from collections.abc import Sequence

from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.federate import wire
from edgekit.federate.history import History


class Downlink:
    """Versions of the weights, from 0: whoever has one follows to the last by the payloads in between.

    All clients come to the same weights, which are the server's too. What the codec left out of one version goes with
    the next where the codec keeps it.
    """

    def __init__(self, codec: UpdateCodec, seed: int, weights: Arrays) -> None:
        self.codec = codec
        self.version = 0
        #: The weights of `version`, as every client has them.
        self.weights = weights
        self._seed = seed
        self._sender = codec.sender(learns=False)
        self._history = History()

    def follow(self, target: Arrays) -> Arrays:
        """The weights of the next version, which are `target` but for what the codec leaves out."""
        sent = wire.pack(self.weights, target, self._sender, wire.generator(self._seed, self.version))
        self.weights = sent.weights
        self._history.add(self.version, sent.payload, sum(array.nbytes for array in self.weights.values()))
        self.version += 1
        return self.weights

    def since(self, version: int | None) -> list[bytes] | None:
        """The payloads, in order, for a client that has `version`; None where it needs the weights themselves."""
        return None if version is None else self._history.since(version, self.version)


def follow(weights: Arrays, payloads: Sequence[bytes], codec: UpdateCodec) -> Arrays:
    """A client's weights after `payloads`, which `Downlink.since` gave. PayloadError on any other bytes."""
    for payload in payloads:
        weights = wire.unpack(weights, payload, codec).weights
    return weights

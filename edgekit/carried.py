"""What rounds carry: the whole front half, or chosen layers alone until a round that a test follows.

::

    names that rounds average --Carried--> chosen   in every round
                                           rest     in rounds that a test follows; until then each device has its own

In a message the bytes of the rest stand behind those of the chosen ones.
"""

from typing import Any, Dict, Iterable, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.codecs.updates.flat import Shapes
from edgekit.errors import PayloadError

#: In place of the number of bytes of the rest, for a message that has the chosen ones alone.
NO_REST = -1


class Carried:
    """Which of `names` go with every round: those in the modules `layers`; all, where no layer is named."""

    def __init__(self, names: Iterable[str], layers: Sequence[str] = ()) -> None:
        every = list(names)
        self.chosen = [name for name in every if not layers or any(_is_in(name, layer) for layer in layers)]
        self.rest = [name for name in every if name not in set(self.chosen)]

    def unpack(self, codec: UpdateCodec, update: bytes, rest: int, shapes: Shapes) -> Arrays:
        """The arrays in `update`, whose last `rest` bytes are the rest's, or which has none (`NO_REST`).

        `shapes` are those of all names. PayloadError on any other bytes.
        """
        if rest != NO_REST and (not self.rest or not 0 <= rest <= len(update)):
            told = "{} B of layers that only some rounds carry, in an update of {} B: {} such arrays are expected"
            raise PayloadError(told.format(rest, len(update), len(self.rest)))
        end = len(update) - max(rest, 0)
        arrays = codec.unpack(update[:end], {name: shapes[name] for name in self.chosen})
        if rest != NO_REST:
            arrays.update(codec.unpack(update[end:], {name: shapes[name] for name in self.rest}))
        return arrays


class Sender:
    """The sender's end of the rounds. What it keeps of an array (`UpdateCodec.sender`) is for the next one with it."""

    def __init__(self, carried: Carried, codec: UpdateCodec, learns: bool = True) -> None:
        self._carried = carried
        self._chosen, self._rest = codec.sender(learns), codec.sender(learns)

    @property
    def state(self) -> Dict[str, Any]:
        """What it keeps, as a state (`edgekit.statefile`)."""
        return {"chosen": self._chosen.state, "rest": self._rest.state}

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`."""
        self._chosen.restore(state["chosen"])
        self._rest.restore(state["rest"])

    def send(self, update: Arrays, rng: np.random.Generator) -> Tuple[bytes, int, Arrays]:
        """The bytes of `update`, how many of them are the rest's, or `NO_REST`, and what arrives.

        `update` has the chosen names, and the rest or nothing of it. ShapeError where dtypes, names or shapes are
        others, Diverged where there is a value that is not finite; what is kept is then as it was.
        """
        chosen = {name: update[name] for name in self._carried.chosen}
        others = {name: update[name] for name in self._carried.rest if name in update}
        self._chosen.check(chosen)
        if others:
            self._rest.check(others)
        payload, arrives = self._chosen.send(chosen, rng)
        if not others:
            return payload, NO_REST, arrives
        more, late = self._rest.send(others, rng)
        return payload + more, len(more), dict(arrives, **late)


def _is_in(name: str, layer: str) -> bool:
    """Whether the weight `name` is the module `layer`'s, or is `layer`."""
    return (name + ".").startswith(layer + ".")

"""Error feedback: what an update codec left out is added to the next update.

Over many rounds the receiver then gets the sum of all updates but for the last residual, however coarse the codec
(Seide et al. 2014, Interspeech; Stich et al. 2018, arXiv:1809.07599).
"""

from typing import Any, Dict, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.updates.flat import shapes_of
from edgekit.tensors import TensorSpec, check_all


class ErrorFeedback(UpdateSender):
    """An end that keeps what was left out. The first update says which weights there are, all later ones are of these.

    Its state is the residual: arrays f32 by name.
    """

    def __init__(self, codec: UpdateCodec) -> None:
        super().__init__(codec)
        self._residual: Arrays = {}

    @property
    def state(self) -> Dict[str, Any]:
        return {name: array.copy() for name, array in self._residual.items()}

    def restore(self, state: Dict[str, Any]) -> None:
        self.codec.check_update(state)
        self._residual = {name: array.copy() for name, array in state.items()}

    def send(self, update: Arrays, rng: np.random.Generator) -> Tuple[bytes, Arrays]:
        """The bytes of `update` and the residual of the times before, and what arrives of them, as f32."""
        self.check(update)
        given = update
        if self._residual:
            # An overflow is told by the codec, which names the weight.
            with np.errstate(over="ignore", invalid="ignore"):
                given = {name: np.asarray(array + self._residual[name]) for name, array in update.items()}
        payload = self._pack(given, rng)
        arrives = self.codec.unpack(payload, shapes_of(given))
        self._residual = {name: np.asarray(given[name] - array) for name, array in arrives.items()}
        return payload, arrives

    def check(self, update: Arrays) -> None:
        if self._residual:
            specs = [TensorSpec(name, "float32", array.shape) for name, array in self._residual.items()]
            check_all(specs, update, "an update after others (for other weights begin anew)")
        super().check(update)

    def _pack(self, given: Arrays, rng: np.random.Generator) -> bytes:
        return self.codec.pack(given, rng)

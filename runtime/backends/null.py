"""The null backend: a graph that computes nothing, to measure everything but the engine."""

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.runtime.backends.base import Backend


class Null(Backend):
    """Gives zeros of the declared shapes; an open dimension of an output takes the length of the batch."""

    backend_id = "null"

    def _open(self, model: bytes) -> None:
        return None

    def _run(self, feeds: Arrays) -> Arrays:
        open_lengths = [
            length
            for spec in self.graph.inputs
            for declared, length in zip(spec.shape, feeds[spec.name].shape)
            if declared == -1
        ]
        batch = open_lengths[0] if open_lengths else 1
        return {
            spec.name: np.zeros([batch if length == -1 else length for length in spec.shape], dtype=spec.dtype)
            for spec in self.graph.outputs
        }

    def _replace(self, constants: Arrays) -> None:
        return None

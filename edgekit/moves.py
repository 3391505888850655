"""A front half's weights moved by an update, computed alike on both sides, to the last bit."""

from typing import Iterable

import numpy as np

from edgekit.codecs.base import Arrays

#: A variance keeps at least this share of itself in one round: an update is not exact, and might make it negative.
LEAST_VARIANCE = 0.1


def shared(state: Arrays, learned: Iterable[str], kept: Iterable[str] = ()) -> Arrays:
    """Copies of the arrays of `state` that rounds average: those that are `learned`, but for those of the names `kept`.

    In the order of `state`, which is the same on both sides.
    """
    names = set(learned) - set(kept)
    return {name: array.copy() for name, array in state.items() if name in names}


def moved(state: Arrays, update: Arrays, variances: Iterable[str]) -> Arrays:
    """`state` plus `update`, f32 both; `variances` are names of batch norms' running variances, which stay positive."""
    new = {name: state[name] + update[name] for name in state}
    for name in variances:
        if name in new:
            new[name] = np.maximum(new[name], np.float32(LEAST_VARIANCE) * state[name])
    return new

"""Sampling of devices: which of them take part in a round; the others rest until it is over."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgekit.errors import UsageError

#: Fewest devices of a round that dynamic sampling draws (DHQC's dynamic sampling, section 3).
LEAST = 5


class Sampling(NamedTuple):
    """`share` of the devices take part; with `decay` the share falls by exp(-decay * round), to `LEAST` devices."""

    share: float = 1.0
    decay: float = 0.0

    def resting(self, names: Sequence[str], number: int, seed: int) -> set[str]:
        """Those of `names` that sit round `number` out: drawn anew for each, without replacement."""
        count = math.ceil(self.share * len(names) * math.exp(-self.decay * number))
        count = min(max(count, LEAST if self.decay else 1), len(names))
        chosen = np.random.default_rng((seed, number)).choice(len(names), count, replace=False)
        return set(names) - {names[i] for i in chosen}


def sampling(text: str) -> Sampling:
    """What --sampling says: "all", "static:SHARE" or "dynamic:DECAY". UsageError.

    >>> sampling("dynamic:0.1")
    Sampling(share=1.0, decay=0.1)
    """
    name, _, number = text.partition(":")
    try:
        value = float(number) if number else math.nan
    except ValueError:
        value = math.nan
    if text == "all":
        return Sampling()
    if name == "static" and 0 < value <= 1:
        return Sampling(share=value)
    if name == "dynamic" and 0 < value < math.inf:
        return Sampling(decay=value)
    raise UsageError(
        f"--sampling {text}: expected all, static:SHARE (a share of the devices, up to 1), or dynamic:DECAY (fewer "
        "with every round), for example dynamic:0.1"
    )

"""Sampling of devices: which of them take part in a round; the others rest until it is over."""

import math
from typing import List, NamedTuple, Sequence, Set

import numpy as np

from edgekit.errors import UsageError

#: Fewest devices of a round that dynamic sampling draws (DHQC's dynamic sampling, Eq. 6).
LEAST = 5
#: What "dynamic" alone means: about half of the devices after seven rounds, a tenth after 23.
DECAY = 0.1


class Sampling(NamedTuple):
    """`share` of the devices take part; with `decay` the share falls by exp(-decay * round), to `LEAST` devices."""

    share: float = 1.0
    decay: float = 0.0

    def active(self, devices: int, number: int) -> int:
        """How many of `devices` take part in round `number`, from 0 on.

        >>> [Sampling(decay=0.1).active(20, number) for number in (0, 7, 50)]
        [20, 10, 5]
        """
        # Rounded first: 0.14 of 50 is 7.000000000000001 in floats.
        wanted = math.ceil(round(self.share * devices * math.exp(-self.decay * number), 9))
        return min(max(wanted, LEAST if self.decay else 1), devices)

    def chosen(self, names: Sequence[str], number: int, seed: int) -> List[str]:
        """Those of `names` that take part in round `number`: drawn anew for each, without replacement."""
        drawn = np.random.default_rng((seed, number)).choice(len(names), self.active(len(names), number), replace=False)
        return [names[i] for i in sorted(drawn)]

    def resting(self, names: Sequence[str], number: int, seed: int) -> Set[str]:
        """Those of `names` that sit round `number` out."""
        return set(names) - set(self.chosen(names, number, seed))


def sampling(text: str) -> Sampling:
    """What --sampling says: "all", "static:SHARE", "dynamic" or "dynamic:DECAY". UsageError.

    >>> sampling("dynamic:0.2")
    Sampling(share=1.0, decay=0.2)
    """
    name, _, number = text.partition(":")
    try:
        value = float(number) if number else math.nan
    except ValueError:
        value = math.nan
    if text == "all":
        return Sampling()
    if text == "dynamic":
        return Sampling(decay=DECAY)
    if name == "static" and 0 < value <= 1:
        return Sampling(share=value)
    if name == "dynamic" and 0 < value < math.inf:
        return Sampling(decay=value)
    raise UsageError(
        "--sampling {}: expected all, static:SHARE (a share of the devices, up to 1), dynamic, or dynamic:DECAY "
        "(fewer with every round), for example dynamic:0.2".format(text)
    )

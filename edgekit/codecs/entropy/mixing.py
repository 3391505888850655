"""What the probability of a code index is mixed from: the indices around it, and the numbers of the mixture.

`edgekit.codecs.entropy.context` has the formula, `reference.context` and `native` beside this file the work.
"""

from typing import NamedTuple

import numpy as np

from edgekit.codecs.entropy.slots import log2

#: (groups before, rows before, columns before, weight in eighths): left, upper, upper right, and in the group before at
#: the same place, to the right and below, and two groups before. Weights fitted on features of VGG11-thin, CIFAR-10.
NEIGHBOURS = (
    (0, 0, 1, 6),
    (0, 1, 0, 4),
    (0, 1, -1, 3),
    (1, 0, 0, 3),
    (1, 0, -1, 3),
    (1, -1, 0, 4),
    (2, 0, 0, 3),
)
#: The weight, in eighths, of the index that a memory has: fitted likewise, on the epochs 2 and 6 of a training.
PAST = 6
#: All counts of a group are halved when it has seen so many indices: it forgets.
LIMIT = 1 << 17
#: A context starts as if it had seen one index for each word, spread as in all contexts; in these parts of an index.
SCALE = 16
#: LOG2[i]: 256 times the binary logarithm of i + 1.
LOG2 = log2(np.arange(1, (1 << 16) + 1)).astype(np.int16)


class Mixing(NamedTuple):
    """The numbers of one stream's mixture."""

    groups: int
    words: int
    #: (neighbours,) int32, eighths.
    exponents: np.ndarray
    #: (k,) uint32: what a word weighs that is so many 256ths of a bit less probable than the most probable one; the
    #: last one, for all that is less probable still, is 0.
    weights: np.ndarray


def mixing(groups: int, bits: int, memory: bool) -> Mixing:
    """That of `groups` of indices of `bits` bits, with a memory or without."""
    # Weights of the words of one distribution add up to 2**17 at most: times the coder's slots they fit 32 bits.
    top = 17 - bits
    exponents = [weight for _, _, _, weight in NEIGHBOURS] + ([PAST] if memory else [])
    weights = np.searchsorted(LOG2[: 1 << top], np.arange(256 * top, -2, -1), side="right")
    return Mixing(groups, 1 << bits, np.array(exponents, dtype=np.int32), weights.astype(np.uint32))

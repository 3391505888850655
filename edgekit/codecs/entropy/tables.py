"""Tables: the rANS coder's slots of every symbol, for each of several distributions; and coding by them.

Here every symbol's distribution is known before the first symbol is: they are one run (`edgekit.codecs.entropy.rans`).
"""

from typing import NamedTuple

import numpy as np

from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.native import rans as native
from edgekit.codecs.entropy.reference import rans as reference


class Tables(NamedTuple):
    """One line for each distribution."""

    #: (distributions, symbols) uint32: first slot, and number of slots.
    starts: np.ndarray
    widths: np.ndarray
    #: (distributions, slots.TOTAL) uint8: symbol of a slot.
    symbols: np.ndarray


def tables_of(slots: np.ndarray) -> Tables:
    """The tables of `slots` (distributions, symbols + 1), as `slots.cumulative` gives them; at most 256 symbols."""
    widths = np.diff(slots, axis=1)
    numbers = np.arange(widths.shape[1], dtype=np.uint8)
    each = [np.repeat(numbers, line) for line in widths]
    return Tables(slots[:, :-1].astype(np.uint32), widths.astype(np.uint32), np.stack(each))


def decode(payload: bytes, start: int, kinds: np.ndarray, tables: Tables) -> np.ndarray:
    """(m,) int64: the symbols from byte `start` to the end; `kinds` (m,) int64 has the distribution of each.

    The inverse of `rans.encode` with the one run m. PayloadError on bytes that it does not write.
    """
    return pick(native.decode, reference.decode)(payload, start, kinds, *tables)

"""Tables: the rANS coder's slots of every symbol, for each of several distributions."""

from typing import NamedTuple

import numpy as np


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

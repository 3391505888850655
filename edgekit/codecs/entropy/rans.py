"""Entropy coding by rANS: symbols of known probability <-> bytes, with integers only, so equal on every processor.

It is interleaved rANS (J. Duda, arXiv:1311.2540; F. Giesen, arXiv:1402.3392), vectorised over lanes. Every lane has a
state in [2**16, 2**32), and all lanes share one stack of 16-bit words. A symbol owns `width` of 16,384 slots, from
`start` on, and takes log2(16384 / width) bits. Symbols come in runs: within a run, the probabilities of a symbol do not
depend on other symbols of the run.

A lane that starts empty wastes 16 bits. So the encoder, which goes from the last symbol to the first, starts with few
lanes and fills the states of later lanes with words taken back from the stack.

======  =====  ===========================================================================
offset  size   field (integers little-endian); nothing at all for no symbols
======  =====  ===========================================================================
0       2      at most this many lanes: with the runs it tells the L lanes there are, see `chunks`
2       L/2    per lane the number k of bits of its state above bit 16 without the leading one, 4 bits each
...            those k bits of every lane, most significant first
...     2 each the words: first the low 16 bits of every state, then as they are taken up
======  =====  ===========================================================================
"""

from typing import Sequence

import numpy as np

from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.native import rans as native
from edgekit.codecs.entropy.reference import rans as reference
from edgekit.codecs.entropy.tables import Tables

#: Every lane wastes about 5 bits. So there is one for so many bits of payload.
BITS_PER_LANE = 256


def encode(starts: np.ndarray, widths: np.ndarray, runs: Sequence[int], bits_per_lane: int = BITS_PER_LANE) -> bytes:
    """The bytes of m symbols that own the slots ``starts : starts + widths`` (m,), in runs of these lengths.

    More `bits_per_lane` waste less and take longer; a decoder need not know them.
    """
    return pick(native.encode, reference.encode)(starts, widths, runs, bits_per_lane)


def decode(payload: bytes, start: int, kinds: np.ndarray, tables: Tables) -> np.ndarray:
    """(m,) int64: the symbols from byte `start` to the end; `kinds` (m,) int64 has the distribution of each.

    The inverse of `encode` with the one run m. PayloadError on bytes that it does not write.
    """
    return pick(native.decode, reference.decode)(payload, start, kinds, *tables)

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

import struct
from typing import List, Sequence

import numpy as np

from edgekit.codecs.entropy import bits as bitpack
from edgekit.errors import PayloadError

PRECISION = 14
#: Slots, shared out among the symbols of one distribution.
TOTAL = 1 << PRECISION
_LOW = 1 << 16
#: Every lane wastes about 5 bits. So there is one for so many bits of payload, and for speed no fewer than one for so
#: many symbols.
BITS_PER_LANE = 256
SYMBOLS_PER_LANE = 2048


def log2(values: np.ndarray) -> np.ndarray:
    """(...) int64: 256 times the binary logarithm of integers of at least 1 and below 2**31, rounded down."""
    mantissa = values.astype(np.int64)
    result = np.full(mantissa.shape, 30, dtype=np.int64)
    for shift in (16, 8, 4, 2, 1):
        small = mantissa < 1 << 31 - shift
        mantissa <<= small * shift
        result -= small * shift
    for _ in range(8):
        mantissa = mantissa * mantissa >> 30
        result = 2 * result + (mantissa >> 31)
        mantissa >>= mantissa >> 31
    return result


#: COST[w]: what a symbol of width w, up to TOTAL, takes, in 256ths of a bit.
COST = 256 * PRECISION - log2(np.maximum(np.arange(TOTAL + 1), 1))


def cumulative(counts: np.ndarray) -> np.ndarray:
    """(...,s+1) int64 bounds of slots from (...,s) counts: symbol i owns the slots from bound i up to bound i+1.

    Every symbol owns at least one slot. Counts are integers of at least 0, with sums above 0 and below 2**48; s is at
    most TOTAL.
    """
    symbols = counts.shape[-1]
    slots = np.zeros((*counts.shape[:-1], symbols + 1), dtype=np.int64)
    ends = np.cumsum(counts, axis=-1, dtype=np.int64)
    slots[..., 1:] = ends * (TOTAL - symbols) // ends[..., -1:] + np.arange(1, symbols + 1)
    return slots


def chunks(runs: Sequence[int], bound: int) -> List[int]:
    """The numbers of symbols that are coded at once, first to last: one symbol per lane, on at most `bound` lanes.

    The last eighth of the symbols uses fewer and fewer lanes; its words fill the states of the others (see above).
    """
    count = left = sum(runs)
    sizes = []
    for run in runs:
        while run:
            size = min(run, bound, max(8 * left * bound // count, bound // 12, 1))
            sizes.append(size)
            run -= size
            left -= size
    return sizes


def encode(starts: np.ndarray, widths: np.ndarray, runs: Sequence[int], bits_per_lane: int = BITS_PER_LANE) -> bytes:
    """The bytes of m symbols that own the slots ``starts : starts + widths`` (m,), in runs of these lengths.

    More `bits_per_lane` waste less and take longer; a decoder need not know them.
    """
    m = len(starts)
    if not m:
        return b""
    bound = max(1, min(int(COST[widths].sum()) // (256 * bits_per_lane), 0xFFFF), m // SYMBOLS_PER_LANE)
    sizes = chunks(runs, bound)
    starts, widths = starts.astype(np.uint32), widths.astype(np.uint32)
    # Room for one word per symbol at most, and zeros below for lanes that find the stack empty.
    stack = np.zeros(m + 2 * max(sizes), dtype="<u2")
    top = bottom = m + max(sizes)
    states = np.zeros(0, dtype=np.uint32)
    end = m
    for size in reversed(sizes):
        if size > len(states):
            fresh = size - len(states)
            states = np.concatenate((states, stack[top : top + fresh] | np.uint32(_LOW)))
            top += fresh
            bottom = max(bottom, top)
        state, start, width = states[:size], starts[end - size : end], widths[end - size : end]
        full = (state >> (32 - PRECISION) >= width).nonzero()[0]
        if len(full):
            spilled = state[full]
            top -= len(full)
            stack[top : top + len(full)] = spilled
            state[full] = spilled >> 16
        quotient = state // width
        state += quotient * (TOTAL - width) + start
        end -= size
    top -= len(states)
    stack[top : top + len(states)] = states
    high = states >> 16
    lines = np.unpackbits(high.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    first = lines.argmax(axis=1)
    rest = np.packbits(lines[np.arange(16) > first[:, None]])
    return struct.pack("<H", bound) + bitpack.pack(15 - first, 4) + rest.tobytes() + stack[top:bottom].tobytes()


class Decoder:
    """Decodes `payload` from byte `start` on, chunk by chunk: call `slots`, then `advance`, once for each of `sizes`.

    PayloadError on bytes that `encode` does not write for these runs, at the latest in `finish`.
    """

    def __init__(self, payload: bytes, runs: Sequence[int], start: int = 0) -> None:
        self._start = start
        self._size = len(payload)
        count = sum(runs)
        bound = struct.unpack_from("<H", payload, start)[0] if len(payload) >= start + 2 else 0
        if not (max(1, count // SYMBOLS_PER_LANE) <= bound <= count or count == 0 == self._size - start):
            raise PayloadError(
                "{} B of {} symbols over at most {} lanes".format(self._size - start, count, bound), start
            )
        #: Symbols of each chunk.
        self.sizes = chunks(runs, bound)
        lanes = max(self.sizes) if count else 0
        # Lanes needed from each chunk on; the others give their states back to the stack.
        self._lanes = np.maximum.accumulate(self.sizes[::-1])[::-1].tolist() if count else []
        self._chunk = 0
        at = start + (2 if count else 0)
        lengths = bitpack.unpack(payload[: at + (lanes + 1) // 2], lanes, 4, at)
        at += (lanes + 1) // 2
        total = int(lengths.sum())
        words = at + (total + 7) // 8
        raw = np.unpackbits(np.frombuffer(payload[at:words], dtype=np.uint8))
        if words > self._size or (self._size - words) % 2 or self._size - words < 2 * lanes or raw[total:].any():
            raise PayloadError("{} B from there on do not hold {} states".format(self._size - at, lanes), at)
        lines = np.zeros((lanes, 16), dtype=np.uint8)
        place = np.arange(16) - (15 - lengths)[:, None]
        lines[place == 0] = 1
        lines[place > 0] = raw[:total]
        high = np.packbits(lines, axis=1).view(">u2").reshape(-1).astype(np.uint32)
        # With room in front for the states that are given back.
        self._stack = np.zeros(lanes + (self._size - words) // 2, dtype=np.uint32)
        self._stack[lanes:] = np.frombuffer(payload, dtype="<u2", offset=words)
        self._top = self._read = 2 * lanes
        self._states = high << 16 | self._stack[lanes : 2 * lanes]
        self._state = self._states[: self.sizes[0] if count else 0]
        self._slot = self._state & (TOTAL - 1)

    def slots(self) -> np.ndarray:
        """(size of this chunk,) uint32: for each of its symbols, one of the slots that it owns, below TOTAL."""
        return self._slot

    def advance(self, starts: np.ndarray, widths: np.ndarray) -> None:
        """Moves to the next chunk; this chunk's symbols own the slots ``starts : starts + widths`` (uint32)."""
        state = self._state
        state >>= PRECISION
        state *= widths
        state += self._slot - starts
        low = (state < _LOW).nonzero()[0]
        if len(low):
            words = self._stack[self._top : self._top + len(low)]
            if len(words) < len(low):
                raise PayloadError("the payload ends before its symbols", self._size)
            state[low] = state[low] << 16 | words
            self._top += len(low)
            self._read = max(self._read, self._top)
        self._chunk += 1
        size = lanes = 0
        if self._chunk < len(self.sizes):
            size, lanes = self.sizes[self._chunk], self._lanes[self._chunk]
        if lanes < len(self._states):
            self._give_back(lanes)
        self._state = self._states[:size]
        self._slot = self._state & (TOTAL - 1)

    def _give_back(self, lanes: int) -> None:
        words = self._states[lanes:] - np.uint32(_LOW)
        if (words >= _LOW).any():
            raise PayloadError("a lane does not end as one begins: not the symbols that were coded", self._size)
        self._top -= len(words)
        self._stack[self._top : self._top + len(words)] = words
        self._states = self._states[:lanes]

    def finish(self) -> None:
        """Raises PayloadError unless every byte has been used."""
        if self._read != len(self._stack) or self._stack[self._top :].any():
            raise PayloadError(
                "{} B are left over after the last symbol".format(2 * (len(self._stack) - self._read)),
                self._size - 2 * (len(self._stack) - self._read),
            )

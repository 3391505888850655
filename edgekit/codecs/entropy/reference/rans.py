"""rANS over lanes, all of them at once. The format is in `edgekit.codecs.entropy.rans`."""

import struct
from typing import List, Sequence

import numpy as np

from edgekit.codecs.entropy.reference import bits as bitpack
from edgekit.codecs.entropy.slots import COST, PRECISION, TOTAL
from edgekit.errors import PayloadError

_LOW = 1 << 16
#: For speed there is no fewer than one lane for so many symbols.
SYMBOLS_PER_LANE = 2048


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


def encode(starts: np.ndarray, widths: np.ndarray, runs: Sequence[int], bits_per_lane: int) -> bytes:
    """The bytes of m symbols that own the slots ``starts : starts + widths`` (m,), in runs of these lengths."""
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


def decode(
    payload: bytes, start: int, kinds: np.ndarray, starts: np.ndarray, widths: np.ndarray, symbols: np.ndarray
) -> np.ndarray:
    """(m,) int64: the symbols from byte `start` to the end; `kinds` (m,) int64 has the distribution of each.

    Of every distribution, `starts` and `widths` (distributions, k) uint32 have the slots of its symbols, and `symbols`
    (distributions, TOTAL) uint8 the symbol of each slot. The inverse of `encode` with the one run m. PayloadError on
    bytes that it does not write.
    """
    coded = Decoder(payload, [len(kinds)], start)
    found = np.empty(len(kinds), dtype=np.int64)
    first, columns = kinds * TOTAL, kinds * starts.shape[1]
    of_slot, starts, widths = symbols.reshape(-1), starts.reshape(-1), widths.reshape(-1)
    at = 0
    for size in coded.sizes:
        part = slice(at, at + size)
        found[part] = of_slot[first[part] + coded.slots()]
        columns[part] += found[part]
        coded.advance(starts[columns[part]], widths[columns[part]])
        at += size
    coded.finish()
    return found

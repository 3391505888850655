"""Symbols 0 to 15 whose probabilities are learned from the symbols before <-> bytes.

The coder is the rANS of `edgekit.codecs.entropy.rans` with two lanes that take turns: each symbol may depend on all
before it. Plain Python, symbol by symbol: a microsecond or more for each.

======  ====  =================================================================================
offset  size  field (integers little-endian)
======  ====  =================================================================================
0       8     two 32-bit states, the first symbol's before that of the second
8       2     each the words that the states take up
======  ====  =================================================================================
"""

import struct
from bisect import bisect_right
from typing import List, Tuple

from edgekit.codecs.entropy.slots import PRECISION, TOTAL
from edgekit.errors import PayloadError

SYMBOLS = 16
#: A count starts at 1, and grows by GAIN. All are halved when they add up to more than COUNTS.
GAIN = 16
COUNTS = 32768
#: What counts may add up to in a model that is to learn anew, but not from nothing.
FADED = 1024
#: Slots are shared out anew after 1, 2, 4 ... symbols, and at last every PERIOD.
PERIOD = 32
#: Bits that are coded at once, at most.
PIECE = 14
_LOW = 1 << 16
_STATES = struct.Struct("<II")


class Model:
    """How probable each symbol is; at first all of as many `symbols` as there are alike."""

    def __init__(self, symbols: int) -> None:
        self._counts = [1] * symbols + [0] * (SYMBOLS - symbols)
        self._period = 1
        self._share()

    def learn(self, symbol: int) -> None:
        self._counts[symbol] += GAIN
        self._left -= 1
        if not self._left:
            self._share()

    def fade(self) -> None:
        """Has it learn anew, but not from nothing."""
        self._halve(FADED)
        self._period = 1
        self._share()

    def _halve(self, most: int) -> None:
        """Halves the counts until they add up to `most` or less."""
        while sum(self._counts) > most:
            self._counts = [(count + 1) >> 1 for count in self._counts]

    def _share(self) -> None:
        self._halve(COUNTS)
        scale = (TOTAL - SYMBOLS << 16) // sum(self._counts)
        #: The first slot of each symbol, and then TOTAL.
        self.starts = []
        below = 0
        for symbol, count in enumerate(self._counts):
            self.starts.append((below * scale >> 16) + symbol)
            below += count
        self.starts.append(TOTAL)
        self._left = self._period
        self._period = min(2 * self._period, PERIOD)


class Coder:
    """One end: `Writer` or `Reader`. Both are asked for the same symbols in the same order."""

    def code(self, model: Model, symbol: int, symbols: int) -> int:
        """Writes `symbol`, which is below `symbols`, by `model`, or reads one; `model` learns it. The symbol."""
        symbol = self._symbol(model, symbol, symbols)
        start = model.starts[symbol]
        self._pass(start, model.starts[symbol + 1] - start)
        model.learn(symbol)
        return symbol

    def plain(self, value: int, bits: int) -> int:
        """Writes the lowest `bits` of `value`, which has no others, or reads them. The value."""
        found = 0
        while bits:
            piece = min(bits, PIECE)
            bits -= piece
            part = self._part(value >> bits & (1 << piece) - 1, piece)
            self._pass(part << PRECISION - piece, TOTAL >> piece)
            found = found << piece | part
        return found

    def _symbol(self, model: Model, symbol: int, symbols: int) -> int:
        return symbol

    def _part(self, part: int, bits: int) -> int:
        return part

    def _pass(self, start: int, width: int) -> None:
        """Moves past the symbol that owns the slots from `start` on."""
        raise NotImplementedError


class Writer(Coder):
    def __init__(self) -> None:
        self._slots: List[Tuple[int, int]] = []

    def _pass(self, start: int, width: int) -> None:
        self._slots.append((start, width))

    def payload(self) -> bytes:
        """The bytes of all symbols."""
        states, words = [_LOW, _LOW], []
        for i in reversed(range(len(self._slots))):
            start, width = self._slots[i]
            state = states[i & 1]
            if state >> 32 - PRECISION >= width:
                words.append(state & 0xFFFF)
                state >>= 16
            states[i & 1] = state + state // width * (TOTAL - width) + start
        return _STATES.pack(*states) + struct.pack("<{}H".format(len(words)), *reversed(words))


class Reader(Coder):
    """Reads the bytes from `start` on. PayloadError on bytes that `Writer` does not write, latest in `finish`."""

    def __init__(self, payload: bytes, start: int) -> None:
        self._size = len(payload)
        size = self._size - start
        if size < _STATES.size or size % 2:
            raise PayloadError("{} B of symbols, expected 8 and pairs".format(size), self._size)
        self._states: Tuple[int, int] = _STATES.unpack_from(payload, start)
        if min(self._states) < _LOW:
            raise PayloadError("a state of {}, expected at least {}".format(min(self._states), _LOW), start)
        self._words = struct.unpack_from("<{}H".format(size // 2 - 4), payload, start + _STATES.size)
        self._read = 0

    def finish(self) -> None:
        """Raises PayloadError unless every byte was read, and all is as it was when writing began."""
        if self._read != len(self._words) or self._states != (_LOW, _LOW):
            raise PayloadError(
                "{} words and states {} after the last symbol, expected 0 and {}".format(
                    len(self._words) - self._read, self._states, (_LOW, _LOW)
                ),
                self._size,
            )

    def _symbol(self, model: Model, symbol: int, symbols: int) -> int:
        found = bisect_right(model.starts, self._states[0] & TOTAL - 1) - 1
        if found >= symbols:
            raise PayloadError("symbol {}, expected one below {}".format(found, symbols), self._at())
        return found

    def _at(self) -> int:
        """The byte that is read next."""
        return min(self._size, self._size - 2 * (len(self._words) - self._read))

    def _part(self, part: int, bits: int) -> int:
        return (self._states[0] & TOTAL - 1) >> PRECISION - bits

    def _pass(self, start: int, width: int) -> None:
        state, other = self._states
        state = width * (state >> PRECISION) + (state & TOTAL - 1) - start
        if state < _LOW:
            # Zeros after the end: that there was no more shows when all is read.
            state = state << 16 | (self._words[self._read] if self._read < len(self._words) else 0)
            self._read += 1
        self._states = (other, state)

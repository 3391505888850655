"""Levels of rows, see `edgekit.codecs.entropy.rows`: value by value in plain Python, some microseconds each."""

from typing import List

import numpy as np

from edgekit.codecs.entropy.reference.adaptive import SYMBOLS, Coder, Model, Reader, Writer
from edgekit.errors import UsageError

GROUP = 4
#: Beyond these, a value adds no more to what is expected around it.
COUNTED, SIZED = 8, 0xFFFF
#: Of a value's bits below the leading one, so many are a symbol, and the others plain.
TOP = 4


class _Models:
    def __init__(self) -> None:
        self.rows = [Model(2) for _ in range(4)]
        self.maps = [Model(1 << GROUP) for _ in range(24)]
        self.lengths = [Model(SYMBOLS) for _ in range(22)]
        self.longer = Model(SYMBOLS)
        self.tops = [Model(1 << min(length, TOP)) for length in range(SYMBOLS)]
        self.signs = [Model(2) for _ in range(9)]

    def begin_array(self) -> None:
        """Before an array: how large levels are is each array's own, rather than which of them are not 0."""
        for model in (*self.rows, *self.lengths, self.longer, *self.tops[1:], *self.signs):
            model.fade()


class _Around:
    """Of groups, with one more on both sides: values, each counted up to COUNTED, and magnitudes."""

    def __init__(self, groups: int) -> None:
        self.counts = [0] * (groups + 2)
        self.sizes = [0] * (groups + 2)


def encode(levels: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> bytes:
    """The bytes of `levels`, see `edgekit.codecs.entropy.rows.encode`."""
    given = levels.tolist()
    if given and not -(1 << 31) < min(given) <= max(given) < 1 << 31:
        told = "levels of {} to {}, expected magnitudes below 2**31: a larger step gives smaller levels"
        raise UsageError(told.format(min(given), max(given)))
    writer = Writer()
    _code(writer, given, sizes, rows)
    return writer.payload()


def decode(payload: bytes, start: int, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The levels, see `edgekit.codecs.entropy.rows.decode`."""
    reader = Reader(payload, start)
    levels = [0] * int(sizes.sum())
    _code(reader, levels, sizes, rows)
    reader.finish()
    return np.array(levels, dtype=np.int64)


def _code(coder: Coder, levels: List[int], sizes: np.ndarray, rows: np.ndarray) -> None:
    """Writes `levels`, or fills them with what is read."""
    models, begin = _Models(), 0
    for size, lines in zip(sizes.tolist(), rows.tolist()):
        models.begin_array()
        width, zeros = size // lines, 0
        above, columns = (_Around((width + GROUP - 1) // GROUP) for _ in range(2))
        for start in range(begin, begin + size, width):
            zero = 0
            if lines > 1:
                zero = coder.code(models.rows[zeros], int(not any(levels[start : start + width])), 2)
            zeros = (zeros << 1 | zero) & 3
            if not zero:
                _code_row(coder, models, levels, start, width, above, columns)
        begin += size


def _code_row(
    coder: Coder, models: _Models, levels: List[int], start: int, width: int, above: _Around, columns: _Around
) -> None:
    count = size = count2 = size2 = 0  # of the group before, and of the one before that
    row_count = row_size = corner_count = corner_size = 0
    for group, first in enumerate(range(0, width, GROUP), 1):
        here = min(GROUP, width - first)
        ups, columns_count, columns_size = above.counts[group], columns.counts[group], columns.sizes[group]
        expected = 4 * count + 2 * count2 + 4 * ups + corner_count + above.counts[group + 1]
        expected += columns_count + row_count
        sized = 4 * size + 2 * size2 + 4 * above.sizes[group] + corner_size + above.sizes[group + 1]
        sized += columns_size + row_size
        octave = (sized >> 5).bit_length()
        places = range(start + first, start + first + here)
        chosen = sum((levels[place] != 0) << i for i, place in enumerate(places))
        chosen = coder.code(models.maps[_half_octave(expected)], chosen, 1 << here)
        count2, size2, count, size = count, size, 0, 0
        for i, place in enumerate(places):
            if chosen >> i & 1:
                before = _sign(levels[place - 1]) if first + i else 0
                third = _sign(levels[place - 3]) if first + i > 2 else 0
                level = levels[place] = _code_level(coder, models, levels[place], octave, 3 * before + third)
                count += min(abs(level), COUNTED)
                size += min(abs(level), SIZED)
        corner_count, corner_size = ups, above.sizes[group]
        above.counts[group], above.sizes[group] = count, size
        columns.counts[group] += 4 * count - (columns_count >> 2)
        columns.sizes[group] += 4 * size - (columns_size >> 2)
        row_count += 4 * count - (row_count >> 4)
        row_size += 4 * size - (row_size >> 4)


def _code_level(coder: Coder, models: _Models, level: int, size: int, signs: int) -> int:
    """Writes `level`, which is not 0, or reads it; `size` is about the octave expected of its magnitude."""
    given = abs(level) or 1
    length = given.bit_length() - 1
    symbol = coder.code(models.lengths[size], min(length, 15), SYMBOLS)
    length = symbol if symbol < 15 else 15 + coder.code(models.longer, length - 15, SYMBOLS)
    magnitude = 1
    if length:
        top = min(length, TOP)
        rest = length - top
        part = coder.code(models.tops[symbol], given >> rest & (1 << top) - 1, 1 << top)
        magnitude = (magnitude << top | part) << rest | coder.plain(given & (1 << rest) - 1, rest)
    return -magnitude if coder.code(models.signs[signs], int(level < 0), 2) else magnitude


def _half_octave(value: int) -> int:
    """0, 1, 2, 3, 4, ... for 0, 1, 2, 3, 4 and 5, 6 and 7, 8 to 11, 12 to 15, ...: half octaves."""
    if value < 2:
        return value
    octave = value.bit_length() - 1
    return 2 * octave + (value >> octave - 1 & 1)


def _sign(level: int) -> int:
    """0 for none, 1 for a positive level, 2 for a negative one."""
    return 1 if level > 0 else 2 if level < 0 else 0

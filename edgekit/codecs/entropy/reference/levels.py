"""Levels that are mostly 0, see `edgekit.codecs.entropy.levels`."""

import struct
from typing import Tuple

import numpy as np

from edgekit.codecs.entropy import fields, gaps
from edgekit.codecs.entropy.reference import rans
from edgekit.errors import PayloadError

_HEAD = struct.Struct("<BI")


def encode(places: np.ndarray, values: np.ndarray, sizes: np.ndarray, bits_per_lane: int) -> bytes:
    """The bytes of the levels that are not 0, see `edgekit.codecs.entropy.levels.encode`."""
    elements, ends = int(sizes.sum()), np.searchsorted(places, np.cumsum(sizes))
    counts = np.diff(ends, prepend=0)
    excess = np.abs(values) - 1
    beyond = np.flatnonzero(excess)
    excess = excess[beyond]
    above = (np.array([len(beyond)]), np.array([len(values)]))
    buckets, within = gaps.split(np.concatenate((gaps.gaps(places, counts, sizes), gaps.gaps(beyond, *above))))
    counts, sizes = np.append(counts, above[0]), np.append(sizes, above[1])
    slots = gaps.tables(gaps.octaves(elements))
    kind = np.repeat(gaps.classes(counts, sizes), counts)
    width = int(counts.max()).bit_length()
    lengths = _lengths(excess)
    bits = fields.write(
        [
            (counts, np.full(len(counts), width)),
            (values < 0, np.ones(len(values), dtype=np.int64)),
            (within, gaps.widths(buckets)),
            ((1 << lengths) - 2, lengths),
            (excess, lengths - 1),
        ]
    )
    packed = np.packbits(bits).tobytes()
    coded = rans.encode(slots.starts[kind, buckets], slots.widths[kind, buckets], [len(buckets)], bits_per_lane)
    return _HEAD.pack(width, len(packed)) + packed + coded


def decode(payload: bytes, start: int, sizes: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The places and values of levels, see `edgekit.codecs.entropy.levels.decode`."""
    elements = int(sizes.sum())
    reader = _Bits(payload, start)
    counts = reader.take(np.full(len(sizes) + 1, reader.count_width))
    chosen = int(counts[:-1].sum())
    sizes = np.append(sizes, chosen)
    if (counts > sizes).any():
        raise PayloadError("a segment of {} elements has {} that are not 0".format(*_first(sizes, counts)), start)
    kinds = np.repeat(gaps.classes(counts, sizes), counts)
    buckets = rans.decode(payload, reader.end, kinds, *gaps.tables(gaps.octaves(elements)))
    negative = reader.take(np.ones(chosen, dtype=np.int64)).astype(bool)
    passed = gaps.join(buckets, reader.take(gaps.widths(buckets)))
    lengths = reader.unary(int(counts[-1]))
    excess = reader.take(lengths) | np.left_shift(1, lengths)
    reader.finish()
    places, fits = gaps.places(passed[:chosen], counts[:-1], sizes[:-1])
    beyond, fits_too = gaps.places(passed[chosen:], counts[-1:], sizes[-1:])
    if not (fits and fits_too):
        raise PayloadError("the elements that are not 0 go on after the last", reader.end)
    values = np.ones(chosen, dtype=np.int64)
    values[beyond] += excess
    np.negative(values, out=values, where=negative)
    return places, values


def _lengths(values: np.ndarray) -> np.ndarray:
    """The length in bits of each of `values`, which are at least 1 and below 2**53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def _first(sizes: np.ndarray, counts: np.ndarray) -> Tuple[int, int]:
    segment = int(np.argmax(counts > sizes))
    return int(sizes[segment]), int(counts[segment])


class _Bits:
    """Reads the field of bits from its start."""

    def __init__(self, payload: bytes, start: int) -> None:
        if len(payload) < start + _HEAD.size:
            raise PayloadError("{} B of levels, expected more".format(len(payload) - start), len(payload))
        self.count_width, size = _HEAD.unpack_from(payload, start)
        self._start = start + _HEAD.size
        self.end = self._start + size
        if self.end > len(payload) or self.count_width > 31:
            raise PayloadError(
                "{} B of bits and counts of {}, expected at most {} and 31".format(
                    size, self.count_width, len(payload) - self._start
                ),
                start,
            )
        self._bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8, count=size, offset=self._start))
        self._at = 0

    def take(self, widths: np.ndarray) -> np.ndarray:
        """(m,) int64: the next values, of these widths in bits."""
        total = int(widths.sum())
        if total > len(self._bits) - self._at:
            raise PayloadError("{} more bits, expected {}".format(len(self._bits) - self._at, total), self.end)
        values = fields.read(self._bits[self._at :], widths)
        self._at += total
        return values

    def unary(self, count: int) -> np.ndarray:
        """(count,) int64: the next numbers in unary, as ones before a zero, each at most 40."""
        zeros = np.flatnonzero(self._bits[self._at :] == 0)[:count]
        ones = np.diff(zeros, prepend=-1) - 1
        if len(zeros) < count or ones.max(initial=0) > 40:
            raise PayloadError("{} numbers in unary, expected {} of at most 40".format(len(zeros), count), self.end)
        self._at += int(zeros[-1]) + 1 if count else 0
        return ones.astype(np.int64)

    def finish(self) -> None:
        """Raises PayloadError unless less than a byte of zeros is left."""
        rest = self._bits[self._at :]
        if len(rest) >= 8 or rest.any():
            raise PayloadError("{} bits are left over after the last level".format(len(rest)), self.end)

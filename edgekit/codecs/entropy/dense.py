"""Dense levels: integers that scatter around 0, and are mostly not 0, <-> bytes, entropy coded.

They come in segments, each with a spread of its own (`edgekit.codecs.entropy.spreads`): no table is sent but one byte
that names the spread, so short segments cost little. Where most levels are 0, `edgekit.codecs.entropy.levels` takes
fewer bytes.

======  ====  ================================================================================================
offset  size  field (integers little-endian); nothing at all for no levels
======  ====  ================================================================================================
0       1     octaves: all magnitudes are below 2**octaves, 3 to 31
1       4     bytes of the bits, b
5       s     number of the spread of every segment, for s segments
5 + s   b     bits, most significant first, filled with zeros: signs of all levels that are not 0, 1 for
              negative; places of all magnitudes in their buckets
...     rest  buckets of the magnitudes, range coded (`edgekit.codecs.entropy.rans`)
======  ====  ================================================================================================
"""

import struct

import numpy as np

from edgekit.codecs.entropy import fields, gaps, rans, spreads, tables
from edgekit.codecs.entropy.slots import COST
from edgekit.errors import PayloadError

_HEAD = struct.Struct("<BI")
#: Every lane wastes about 5 bits, and updates are few: there is time for long lanes.
_BITS_PER_LANE = 2048


def encode(levels: np.ndarray, sizes: np.ndarray) -> bytes:
    """The bytes of `levels` (m,) int64, of magnitudes below 2**31, in segments of `sizes` (s,), which add up to m."""
    if not len(levels):
        return b""
    magnitudes = np.abs(levels)
    octaves = spreads.octaves(int(magnitudes.max()))
    buckets, within = gaps.split(magnitudes)
    slots = spreads.slots(octaves)
    chosen = _cheapest(buckets, sizes, slots)
    negative = levels[magnitudes > 0] < 0
    bits = fields.write([(negative, np.ones(len(negative), dtype=np.int64)), (within, gaps.widths(buckets))])
    packed = np.packbits(bits).tobytes()
    kinds = np.repeat(chosen, sizes)
    starts = slots[kinds, buckets]
    coded = rans.encode(starts, slots[kinds, buckets + 1] - starts, [len(levels)], _BITS_PER_LANE)
    return _HEAD.pack(octaves, len(packed)) + chosen.astype(np.uint8).tobytes() + packed + coded


def decode(payload: bytes, start: int, sizes: np.ndarray) -> np.ndarray:
    """The levels (m,) int64 from byte `start` to the end, in segments of `sizes` (s,).

    PayloadError on bytes that `encode` does not write.
    """
    count, given = int(sizes.sum()), len(payload) - start
    least = _HEAD.size + len(sizes) if count else 0
    if given < least or (given and not count):
        raise PayloadError("{} B of {} levels, expected {}".format(given, count, least), start + min(given, least))
    if not count:
        return np.zeros(0, dtype=np.int64)
    octaves, size = _HEAD.unpack_from(payload, start)
    if not 3 <= octaves <= 31:
        raise PayloadError("{} octaves, expected 3 to 31".format(octaves), start)
    begin = start + least
    if size > len(payload) - begin:
        raise PayloadError("{} B of bits, expected at most {}".format(size, len(payload) - begin), start + 1)
    chosen = np.frombuffer(payload, dtype=np.uint8, count=len(sizes), offset=start + _HEAD.size)
    known, lines = np.unique(chosen, return_inverse=True)
    kinds = np.repeat(lines.reshape(-1), sizes)
    buckets = rans.decode(payload, begin + size, kinds, tables.tables_of(spreads.slots(octaves)[known]))
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8, count=size, offset=begin))
    filled = np.flatnonzero(buckets)
    widths = gaps.widths(buckets)
    used = len(filled) + int(widths.sum())
    if size != (used + 7) // 8 or bits[used:].any():
        raise PayloadError("{} B of bits, expected {} bits and zeros".format(size, used), begin)
    levels = gaps.join(buckets, fields.read(bits[len(filled) :], widths))
    levels[filled] *= 1 - 2 * bits[: len(filled)].astype(np.int64)
    return levels


def _cheapest(buckets: np.ndarray, sizes: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(s,) int64: for every segment the spread that takes the fewest bits."""
    width = slots.shape[1] - 1
    segments = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.bincount(segments * width + buckets, minlength=len(sizes) * width).reshape(-1, width)
    return np.asarray(counts.dot(COST[np.diff(slots, axis=1)].T).argmin(axis=1))

"""Calls of levels.c."""

import struct
from ctypes import c_char_p, c_int32, c_int64, string_at
from typing import Optional, Tuple

import numpy as np

from edgekit.codecs.entropy import gaps
from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.native.rans import DECODER, ENCODER, decoder_space, encoder_space
from edgekit.codecs.entropy.reference import levels as reference
from edgekit.codecs.entropy.slots import COST

_HEAD = struct.Struct("<BI")
_encode = Function(
    "edgekit_levels_encode", array("i8"), array("i8"), c_int64, array("i8"), c_int64, array("u4"), array("u4"), c_int64,
    c_int64, array("i2"), array("i8"), array("i8"), array("u1"), array("i8"), *ENCODER, result=c_int64,
)  # fmt: skip
_decode = Function(
    "edgekit_levels_decode", c_char_p, c_int64, c_int64, c_int64, array("i8"), array("i8"), c_int64, array("u4"),
    array("u4"), array("u1"), c_int64, *DECODER, array("u1"), array("i8"), array("i8"), array("i8"), result=c_int32,
)  # fmt: skip


def encode(places: np.ndarray, values: np.ndarray, sizes: np.ndarray, bits_per_lane: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.levels.encode` gives."""
    count, segments = len(places), len(sizes)
    slots = gaps.tables(gaps.octaves(int(sizes.sum())))
    # 31 bits of each count, a sign, twice 29 bits of a gap, and 81 of an excess.
    fields = np.empty(_HEAD.size + (31 * (segments + 1) + 140 * count) // 8 + 1, dtype=np.uint8)
    written, (*work, out) = np.empty(1, dtype=np.int64), encoder_space(2 * count)
    size = _encode(
        places, values, count, sizes, segments, slots.starts, slots.widths, slots.starts.shape[1], bits_per_lane, COST,
        np.empty(segments + 1, dtype=np.int64), np.empty(count, dtype=np.int64), fields, written, *work, out
    )  # fmt: skip
    if size < 0:
        return reference.encode(places, values, sizes, bits_per_lane)
    return fields[: written[0]].tobytes() + string_at(out, size)


def decode(payload: bytes, start: int, sizes: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """What `edgekit.codecs.entropy.reference.levels.decode` gives."""
    segments = len(sizes)
    head = _read_head(payload, start, segments + 1)
    if head is None:
        return reference.decode(payload, start, sizes)
    counts, at, end = head
    chosen = int(counts[:-1].sum())
    every = np.append(sizes, chosen)
    if (counts > every).any():
        return reference.decode(payload, start, sizes)
    symbols = chosen + int(counts[-1])
    slots = gaps.tables(gaps.octaves(int(sizes.sum())))
    places, values = np.empty((2, chosen), dtype=np.int64)
    if _decode(
        payload, len(payload), at, end, counts, every, segments, slots.starts, slots.widths, slots.symbols,
        slots.starts.shape[1], *decoder_space(symbols, len(payload)), np.empty(symbols, dtype=np.uint8),
        np.empty(counts[-1], dtype=np.int64), places, values
    ):  # fmt: skip
        return reference.decode(payload, start, sizes)
    return places, values


def _read_head(payload: bytes, start: int, count: int) -> Optional[Tuple[np.ndarray, int, int]]:
    """The first `count` numbers of the bits, and between which bits of `payload` the others are; None if not there."""
    begin = start + _HEAD.size
    if len(payload) < begin:
        return None
    width, size = _HEAD.unpack_from(payload, start)
    bits = count * width
    if width > 31 or begin + size > len(payload) or 8 * size < bits:
        return None
    whole = int.from_bytes(payload[begin : begin + (bits + 7) // 8], "big") >> (-bits % 8)
    mask = (1 << width) - 1
    numbers = [whole >> width * i & mask for i in reversed(range(count))]
    return np.array(numbers, dtype=np.int64), 8 * begin + bits, 8 * (begin + size)

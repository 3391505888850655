"""Calls of rans.c."""

from ctypes import c_char_p, c_int32, c_int64, c_void_p, string_at
from typing import Any, Sequence, Tuple

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.native.space import space
from edgekit.codecs.entropy.reference import rans as reference
from edgekit.codecs.entropy.slots import COST

#: RANS_LANES in rans.h.
LANES = 0xFFFF
#: Types of what `encoder_space` and `decoder_space` give.
ENCODER, DECODER = (c_void_p,) * 4, (c_void_p,) * 3
_encode = Function(
    "edgekit_rans_encode", array("u4"), array("u4"), c_int64, array("i8"), c_int64, array("i2"), *ENCODER,
    result=c_int64,
)  # fmt: skip
_decode = Function(
    "edgekit_rans_decode", c_char_p, c_int64, c_int64, array("i8"), c_int64, c_int64, c_int64, array("u1"), array("u4"),
    array("u4"), *DECODER, array("i8"), result=c_int32,
)  # fmt: skip


def encoder_space(count: int) -> Tuple[Any, ...]:
    """Memory for coding `count` symbols: slots, sizes of chunks, states, and bytes; as rans.h wants it."""
    lanes = min(count, LANES)
    sizes = {"slots": 4 * count, "sizes": 4 * count, "states": 4 * lanes, "out": 2 * count + 8 * lanes + 8}
    return tuple(space(name, size) for name, size in sizes.items())


def decoder_space(count: int, size: int) -> Tuple[Any, ...]:
    """Memory for decoding `count` symbols of `size` bytes: sizes of chunks, states, and stack; as rans.h wants it."""
    lanes = min(count, LANES)
    return space("sizes", 8 * count), space("states", 4 * lanes), space("stack", 4 * lanes + size + 2)


def encode(starts: np.ndarray, widths: np.ndarray, runs: Sequence[int], bits_per_lane: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.rans.encode` gives."""
    *work, out = encoder_space(len(starts))
    owned = (np.ascontiguousarray(each, dtype=np.uint32) for each in (starts, widths))
    size = _encode(*owned, len(starts), np.array(runs, dtype=np.int64), bits_per_lane, COST, *work, out)
    return string_at(out, size) if size >= 0 else reference.encode(starts, widths, runs, bits_per_lane)


def decode(
    payload: bytes, start: int, kinds: np.ndarray, starts: np.ndarray, widths: np.ndarray, symbols: np.ndarray
) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.rans.decode` gives."""
    found = np.empty(len(kinds), dtype=np.int64)
    given = (payload, len(payload), start, np.ascontiguousarray(kinds, dtype=np.int64), len(kinds), *starts.shape)
    if _decode(*given, symbols, starts, widths, *decoder_space(len(kinds), len(payload)), found):
        return reference.decode(payload, start, kinds, starts, widths, symbols)
    return found

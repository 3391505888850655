"""Calls of rans.c."""

from ctypes import c_char_p, c_int32, c_int64
from typing import Sequence, Tuple

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.reference import rans as reference
from edgekit.codecs.entropy.slots import COST

#: RANS_LANES in rans.h.
LANES = 0xFFFF
_encode = Function(
    "edgekit_rans_encode", array("u4"), array("u4"), c_int64, array("i8"), c_int64, array("i2"), array("u4"),
    array("i4"), array("u4"), array("u1"), result=c_int64,
)  # fmt: skip
_decode = Function(
    "edgekit_rans_decode", c_char_p, c_int64, c_int64, array("i8"), c_int64, c_int64, c_int64, array("u1"), array("u4"),
    array("u4"), array("i4"), array("u4"), array("u2"), array("i8"), result=c_int32,
)  # fmt: skip


def encoder_space(count: int) -> Tuple[np.ndarray, ...]:
    """Memory for coding `count` symbols: slots, sizes of chunks, states, and bytes."""
    lanes = min(count, LANES)
    slots, sizes = np.empty(count, dtype=np.uint32), np.empty(count, dtype=np.int32)
    return slots, sizes, np.empty(lanes, dtype=np.uint32), np.empty(2 * count + 8 * lanes + 8, dtype=np.uint8)


def decoder_space(count: int, size: int) -> Tuple[np.ndarray, ...]:
    """Memory for decoding `count` symbols of `size` bytes: sizes of chunks, states, and stack."""
    lanes = min(count, LANES)
    sizes, states = np.empty(2 * count, dtype=np.int32), np.empty(lanes, dtype=np.uint32)
    return sizes, states, np.empty(lanes + size // 2, dtype=np.uint16)


def encode(starts: np.ndarray, widths: np.ndarray, runs: Sequence[int], bits_per_lane: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.rans.encode` gives."""
    count, space = len(starts), encoder_space(len(starts))
    owned = (np.ascontiguousarray(each, dtype=np.uint32) for each in (starts, widths))
    size = _encode(*owned, count, np.array(runs, dtype=np.int64), bits_per_lane, COST, *space)
    return space[-1][:size].tobytes() if size >= 0 else reference.encode(starts, widths, runs, bits_per_lane)


def decode(
    payload: bytes, start: int, kinds: np.ndarray, starts: np.ndarray, widths: np.ndarray, symbols: np.ndarray
) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.rans.decode` gives."""
    found = np.empty(len(kinds), dtype=np.int64)
    space = decoder_space(len(kinds), len(payload))
    given = (payload, len(payload), start, np.ascontiguousarray(kinds, dtype=np.int64), len(kinds), *starts.shape)
    if _decode(*given, symbols, starts, widths, *space, found):
        return reference.decode(payload, start, kinds, starts, widths, symbols)
    return found

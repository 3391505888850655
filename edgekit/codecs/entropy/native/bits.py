"""Calls of bits.c."""

from ctypes import c_char_p, c_int32, c_int64

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array

_pack = Function("edgekit_pack_bits", array("i4"), c_int64, c_int32, array("u1"))
_unpack = Function("edgekit_unpack_bits", c_char_p, c_int64, c_int64, c_int32, array("i4"))


def pack(values: np.ndarray, bits: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.bits.pack` gives."""
    packed = np.empty((values.size * bits + 7) // 8, dtype=np.uint8)
    _pack(np.ascontiguousarray(values, dtype=np.int32), values.size, bits, packed)
    return packed.tobytes()


def unpack(payload: bytes, start: int, count: int, bits: int) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.bits.unpack` gives."""
    values = np.empty(count, dtype=np.int32)
    _unpack(payload, start, count, bits, values)
    return values

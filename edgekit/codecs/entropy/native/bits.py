"""Calls of bits.c."""

from ctypes import c_char_p, c_int32, c_int64

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.reference import bits as reference

_pack = Function("edgekit_pack_bits", array("i4"), c_int64, c_int32, array("u1"))
_unpack = Function(
    "edgekit_unpack_bits", c_char_p, c_int64, c_int64, c_int64, c_int32, array("i4"), result=c_int32
)  # fmt: skip


def pack(values: np.ndarray, bits: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.bits.pack` gives."""
    packed = np.empty(reference.size(values.size, bits), dtype=np.uint8)
    _pack(np.ascontiguousarray(values, dtype=np.int32), values.size, bits, packed)
    return packed.tobytes()


def unpack(payload: bytes, count: int, bits: int, start: int) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.bits.unpack` gives."""
    values = np.empty(count, dtype=np.int32)
    if _unpack(payload, len(payload), start, count, bits, values):
        return reference.unpack(payload, count, bits, start)
    return values

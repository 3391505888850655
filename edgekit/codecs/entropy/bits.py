"""Small non-negative integers <-> bytes, with a fixed number of bits each, which every device can do.

Values are written one after another, most significant bit first; the last byte is filled up with zeros.

>>> pack(np.array([1, 2, 3, 15]), 4).hex()
'123f'
>>> unpack(bytes.fromhex("123f"), 4, 4)
array([ 1,  2,  3, 15], dtype=int32)
"""

import numpy as np

from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.native import bits as native
from edgekit.codecs.entropy.reference import bits as reference


def size(count: int, bits: int) -> int:
    """Bytes that `count` values of `bits` bits take."""
    return reference.size(count, bits)


def pack(values: np.ndarray, bits: int) -> bytes:
    """Packed `values` (of any shape, integers in [0, 2**bits), 1 <= bits <= 16)."""
    return pick(native.pack, reference.pack)(values.reshape(-1), bits)


def unpack(payload: bytes, count: int, bits: int, start: int = 0) -> np.ndarray:
    """(count,) int32 values of the bytes from `start` to the end. PayloadError on bytes that `pack` does not write."""
    return pick(native.unpack, reference.unpack)(payload, count, bits, start)

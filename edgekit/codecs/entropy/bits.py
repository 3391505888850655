"""Small non-negative integers <-> bytes, with a fixed number of bits each, which every device can do.

Values are written one after another, most significant bit first; the last byte is filled up with zeros.

>>> pack(np.array([1, 2, 3, 15]), 4).hex()
'123f'
>>> unpack(bytes.fromhex("123f"), 4, 4)
array([ 1,  2,  3, 15], dtype=int32)
"""

import numpy as np

from edgekit.errors import PayloadError


def size(count: int, bits: int) -> int:
    """Bytes that `count` values of `bits` bits take."""
    return (count * bits + 7) // 8


def pack(values: np.ndarray, bits: int) -> bytes:
    """Packed `values` (of any shape, integers in [0, 2**bits), 1 <= bits <= 16)."""
    flat = values.reshape(-1)
    if bits == 8:
        return flat.astype(np.uint8).tobytes()
    if bits == 4:
        nibbles = np.zeros(flat.size + flat.size % 2, dtype=np.uint8)
        nibbles[: flat.size] = flat
        return (nibbles[0::2] << 4 | nibbles[1::2]).tobytes()
    raw = np.unpackbits(flat.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return np.packbits(raw[:, 16 - bits :]).tobytes()


def unpack(payload: bytes, count: int, bits: int, start: int = 0) -> np.ndarray:
    """(count,) int32 values of the bytes from `start` to the end. PayloadError on bytes that `pack` does not write."""
    expected, given = size(count, bits), len(payload) - start
    if given != expected:
        raise PayloadError(
            "{} values of {} bits take {} B, got {} B".format(count, bits, expected, given),
            start + min(given, expected),
        )
    raw = np.frombuffer(payload, dtype=np.uint8, offset=start)
    spare = 8 * expected - count * bits
    if spare and raw[-1] & ((1 << spare) - 1):
        raise PayloadError("the last {} bits of {} B are not zero".format(spare, expected), len(payload) - 1)
    if bits == 8:
        return raw.astype(np.int32)
    if bits == 4:
        return np.stack((raw >> 4, raw & 15), axis=1).reshape(-1)[:count].astype(np.int32)
    lines = np.zeros((count, 16), dtype=np.uint8)
    lines[:, 16 - bits :] = np.unpackbits(raw)[: count * bits].reshape(count, bits)
    return np.packbits(lines, axis=1).view(">u2").reshape(-1).astype(np.int32)

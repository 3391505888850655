"""Fixed-width bit packing, see `edgekit.codecs.entropy.bits`."""

import numpy as np

from edgekit.errors import PayloadError


def size(count: int, bits: int) -> int:
    """Bytes that `count` values of `bits` bits take."""
    return (count * bits + 7) // 8


def pack(values: np.ndarray, bits: int) -> bytes:
    """The bytes of `values` (m,), integers in [0, 2**bits), 1 <= bits <= 16."""
    if bits == 8:
        return values.astype(np.uint8).tobytes()
    if bits == 4:
        nibbles = np.zeros(values.size + values.size % 2, dtype=np.uint8)
        nibbles[: values.size] = values
        return (nibbles[0::2] << 4 | nibbles[1::2]).tobytes()
    raw = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return np.packbits(raw[:, 16 - bits :]).tobytes()


def unpack(payload: bytes, count: int, bits: int, start: int) -> np.ndarray:
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

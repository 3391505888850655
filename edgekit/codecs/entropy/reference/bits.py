"""Fixed-width bit packing, see `edgekit.codecs.entropy.bits`."""

import numpy as np


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


def unpack(payload: bytes, start: int, count: int, bits: int) -> np.ndarray:
    """(count,) int32 values from byte `start` of `payload` on, which holds them all."""
    raw = np.frombuffer(payload, dtype=np.uint8, offset=start)
    if bits == 8:
        return raw[:count].astype(np.int32)
    if bits == 4:
        return np.stack((raw >> 4, raw & 15), axis=1).reshape(-1)[:count].astype(np.int32)
    lines = np.zeros((count, 16), dtype=np.uint8)
    lines[:, 16 - bits :] = np.unpackbits(raw)[: count * bits].reshape(count, bits)
    return np.packbits(lines, axis=1).view(">u2").reshape(-1).astype(np.int32)

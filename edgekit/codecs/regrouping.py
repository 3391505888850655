"""All tables of a new grouping, the order of channels and every codeword, <-> bytes.

::

    order      C little-endian uint16
    codebook   words * C little-endian float16, row-major, columns in that order
    check      first 4 bytes of the SHA-256 of the above
"""

import hashlib
from typing import Tuple

import numpy as np

from edgekit.errors import PayloadError

CHECK = 4


def size(channels: int, words: int) -> int:
    """The number of bytes that `pack_tables` gives."""
    return 2 * channels + 2 * words * channels + CHECK


def pack_tables(order: np.ndarray, codebook: np.ndarray) -> bytes:
    """Bytes of `order` (C,) int64 and `codebook` (words, C) f32; values beyond float16's range are clipped to it."""
    body: bytes = order.astype("<u2").tobytes() + np.clip(codebook, -65504, 65504).astype("<f2").tobytes()
    return body + hashlib.sha256(body).digest()[:CHECK]


def unpack_tables(payload: bytes, channels: int, words: int) -> Tuple[np.ndarray, np.ndarray]:
    """The order (C,) int64 and the codebook (words, C) f32 that `pack_tables` packed. PayloadError on other bytes."""
    if len(payload) != size(channels, words):
        raise PayloadError(
            "tables of {} B, expected {}".format(len(payload), size(channels, words)),
            min(len(payload), size(channels, words)),
        )
    body, check = payload[:-CHECK], payload[-CHECK:]
    if hashlib.sha256(body).digest()[:CHECK] != check:
        raise PayloadError("tables do not match their check: they were damaged on the way", len(body))
    order = np.frombuffer(body, dtype="<u2", count=channels).astype(np.int64)
    if sorted(order.tolist()) != list(range(channels)):
        raise PayloadError("the order of {} channels in new tables is no permutation".format(channels), 0)
    codebook = np.frombuffer(body, dtype="<f2", offset=2 * channels).astype(np.float32).reshape(words, channels)
    if not np.isfinite(codebook).all():
        raise PayloadError("new tables hold values that are not finite", 2 * channels)
    return order, codebook

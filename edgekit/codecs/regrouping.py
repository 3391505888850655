"""Tables of a new grouping, whole: an order of channels and every codeword, as bytes that both sides read alike.

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
    """Bytes of `pack_tables`."""
    return 2 * channels + 2 * words * channels + CHECK


def pack_tables(order: np.ndarray, codebook: np.ndarray) -> bytes:
    """Bytes of `order` (C,) int64 and `codebook` (words, C) f32; what is beyond float16 stops at its largest."""
    body: bytes = order.astype("<u2").tobytes() + np.clip(codebook, -65504, 65504).astype("<f2").tobytes()
    return body + hashlib.sha256(body).digest()[:CHECK]


def unpack_tables(payload: bytes, channels: int, words: int) -> Tuple[np.ndarray, np.ndarray]:
    """(order (C,) int64, codebook (words, C) f32) of the bytes of `pack_tables`. PayloadError on any others."""
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

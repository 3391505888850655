"""Updates of codebook tables <-> bytes: the codewords that moved, or a new grouping whole.

::

    flags      one bit a codeword, group by group, filled up to whole bytes: set where it moved
    values     C/G little-endian float16 for each codeword whose bit is set

Where the order of channels changed no bit is set, and a new grouping follows:

::

    order      C little-endian uint16
    codebook   words * C little-endian float16, row-major, columns in that order
    check      first 4 bytes of the SHA-256 of the two
"""

import hashlib
from typing import Tuple

import numpy as np

from edgekit.codecs.base import Arrays, CodebookCodec
from edgekit.errors import PayloadError

CHECK = 4


def diff(codec: CodebookCodec, sent: Arrays, tables: Arrays, tolerance: float) -> bytes:
    """Bytes that bring `sent` to `tables`: the codewords that moved by more than `tolerance` of their group's spread.

    Empty where none did.
    """
    if "order" in tables and not np.array_equal(sent["order"], tables["order"]):
        return bytes(_flag_bytes(codec)) + pack_tables(tables["order"], tables["codebook"])
    old, new = codec.books(sent["codebook"]), codec.books(tables["codebook"])
    spread = new.var(axis=1).sum(axis=1)[:, None]
    moved = ((new - old) ** 2).sum(axis=2) > tolerance**2 * spread
    if not moved.any():
        return b""
    values: bytes = np.clip(new[moved], -65504, 65504).astype("<f2").tobytes()
    return np.packbits(moved).tobytes() + values


def patch(codec: CodebookCodec, sent: Arrays, payload: bytes) -> Arrays:
    """New tables from `sent` and the bytes of `diff`. PayloadError on any other bytes."""
    words, channels, n_flags = codec.groups * codec.words, sent["codebook"].shape[1], _flag_bytes(codec)
    if len(payload) < n_flags:
        raise PayloadError("codebook update of {} B, expected at least {}".format(len(payload), n_flags), len(payload))
    flags = np.unpackbits(np.frombuffer(payload, dtype=np.uint8, count=n_flags))
    if not flags.any() and codec.grouping != "contiguous" and len(payload) > n_flags:
        order, codebook = unpack_tables(payload[n_flags:], channels, codec.words)
        return dict(sent, order=order, codebook=codebook)
    moved = flags[:words].astype(bool)
    width = channels // codec.groups
    expected = n_flags + 2 * width * int(moved.sum())
    if len(payload) != expected or flags[words:].any() or not moved.any():
        raise PayloadError(
            "codebook update of {} B that moves {} codewords, expected {} B for at least 1 of {}".format(
                len(payload), int(flags.sum()), expected, words
            ),
            n_flags,
        )
    values = np.frombuffer(payload, dtype="<f2", offset=n_flags).astype(np.float32).reshape(-1, width)
    if not np.isfinite(values).all():
        raise PayloadError("codebook update holds values that are not finite", n_flags)
    books = codec.books(sent["codebook"]).copy()
    books[moved.reshape(codec.groups, codec.words)] = values
    return dict(sent, codebook=np.ascontiguousarray(books.transpose(1, 0, 2).reshape(codec.words, -1)))


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


def _flag_bytes(codec: CodebookCodec) -> int:
    return (codec.groups * codec.words + 7) // 8

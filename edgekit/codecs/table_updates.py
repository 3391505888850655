"""Updates of codebook tables <-> bytes: how far the codewords moved, entropy coded, or the tables whole.

======  ====  =================================================================================================
offset  size  field
======  ====  =================================================================================================
0       1     form: 0 for differences, 1 for whole tables
1       G     differences: the number of each group's step, see `steps`; 0 where nothing of the group moved
1 + G   rest  differences: the values of all codewords, group by group, as levels: multiples of their group's step
              that the receiver adds to what it has (`edgekit.codecs.entropy.levels`)
1       rest  whole tables: see `pack_tables`
======  ====  =================================================================================================

Differences are to what both ends have, so that what rounding left out goes with the next update.
"""

import hashlib
from typing import Tuple

import numpy as np

from edgekit.codecs.base import Arrays, CodebookCodec
from edgekit.codecs.entropy import levels
from edgekit.errors import PayloadError

DIFFERENCES, WHOLE = 0, 1
CHECK = 4
#: The largest magnitude in a table: that of float16, in which boards compute.
LARGEST = 65504.0
#: Four steps an octave, step number `_ONE` being 1.
_QUARTERS, _ONE = np.array([1.0, 2**0.25, 2**0.5, 2**0.75]).astype(np.float32), 128
_MOST = (1 << 31) - 1


def diff(codec: CodebookCodec, sent: Arrays, tables: Arrays, tolerance: float) -> bytes:
    """Bytes that bring `sent` close to `tables`; empty where every value is.

    A value is close when it is off by about `tolerance` of its group's spread at most: the root mean square over the
    codewords, about their mean. With a tolerance of 0, or another order of channels, the tables go whole, as float16.
    """
    if not np.array_equal(sent["order"], tables["order"]):
        return _whole(tables)
    if not tolerance:
        return b"" if np.array_equal(sent["codebook"], tables["codebook"]) else _whole(tables)
    old, new = codec.books(sent["codebook"]).astype(np.float64), codec.books(tables["codebook"])
    with np.errstate(all="ignore"):
        wanted = np.log2(2 * tolerance * np.sqrt(new.var(axis=1, dtype=np.float64).mean(axis=1)))
        # A group that is infinite or not a number stays as it is: training that diverged is told elsewhere.
        sound = np.isfinite(new).all(axis=(1, 2))
        numbers = np.where(sound, np.clip(np.rint(4 * wanted) + _ONE, 0, 255), 0).astype(np.uint8)
        apart = np.where(sound[:, None, None], np.clip(new, -LARGEST, LARGEST) - old, 0)
    moved = np.clip(np.rint(apart / steps(numbers)[:, None, None]), -_MOST, _MOST).astype(np.int32)
    if not moved.any():
        return b""
    numbers[~moved.any(axis=(1, 2))] = 0
    places = np.flatnonzero(moved)
    coded = levels.encode(places, moved.reshape(-1)[places].astype(np.int64), np.array([moved.size]))
    return bytes([DIFFERENCES]) + numbers.tobytes() + coded


def patch(codec: CodebookCodec, sent: Arrays, payload: bytes) -> Arrays:
    """New tables from `sent` and the bytes of `diff`: the same floats everywhere. PayloadError on any other bytes."""
    form = payload[0] if payload else None
    if form == WHOLE:
        return _patch_whole(codec, sent, payload)
    start = 1 + codec.groups
    if form != DIFFERENCES or len(payload) < start:
        told = "codebook update of {} B and form {}, expected form {} with at least {} B, or {}"
        raise PayloadError(told.format(len(payload), form, DIFFERENCES, start, WHOLE), min(len(payload), start))
    numbers = np.frombuffer(payload, dtype=np.uint8, count=codec.groups, offset=1)
    books = codec.books(sent["codebook"]).copy()
    places, values = levels.decode(payload, start, np.array([books.size]))
    groups = places // books[0].size
    still = np.bincount(groups, minlength=codec.groups) == 0
    if not len(places) or numbers[still].any():
        told = "codebook update that moves {} values, with steps for {} groups in which nothing moves"
        raise PayloadError(told.format(len(places), int((numbers[still] > 0).sum())), 1)
    flat = books.reshape(-1)
    flat[places] = np.clip(flat[places] + values * steps(numbers)[groups], -LARGEST, LARGEST)
    return dict(sent, codebook=np.ascontiguousarray(books.transpose(1, 0, 2).reshape(codec.words, -1)))


def steps(numbers: np.ndarray) -> np.ndarray:
    """(...) float64: the steps of these numbers (uint8), four an octave: ``2 ** ((number - 128) / 4)`` as float32."""
    away = numbers.astype(np.int64) - _ONE
    return np.ldexp(_QUARTERS[away % 4].astype(np.float64), (away // 4).astype(np.int32))


def size(channels: int, words: int) -> int:
    """The number of bytes that `pack_tables` gives."""
    return 2 * channels + 2 * words * channels + CHECK


def pack_tables(order: np.ndarray, codebook: np.ndarray) -> bytes:
    """Bytes of `order` (C,) int64 and `codebook` (words, C) f32; values beyond float16's range are clipped to it.

    ::

        order      C little-endian uint16
        codebook   words * C little-endian float16, row-major, columns in that order
        check      first 4 bytes of the SHA-256 of the two
    """
    body: bytes = order.astype("<u2").tobytes() + np.clip(codebook, -LARGEST, LARGEST).astype("<f2").tobytes()
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


def _whole(tables: Arrays) -> bytes:
    return bytes([WHOLE]) + pack_tables(tables["order"], tables["codebook"])


def _patch_whole(codec: CodebookCodec, sent: Arrays, payload: bytes) -> Arrays:
    order, codebook = unpack_tables(payload[1:], sent["codebook"].shape[1], codec.words)
    if codec.grouping == "contiguous" and not np.array_equal(order, sent["order"]):
        raise PayloadError("a new order of channels, where groups are contiguous and stay", 1)
    return dict(sent, order=order, codebook=codebook)

"""Calls of context.c and counts.c."""

from ctypes import c_char_p, c_int32, c_int64, c_void_p, string_at
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.entropy.mixing import LIMIT, LOG2, SCALE, Mixing
from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.native.rans import DECODER, ENCODER, decoder_space, encoder_space
from edgekit.codecs.entropy.native.space import space
from edgekit.codecs.entropy.reference import context as reference
from edgekit.codecs.entropy.slots import COST
from edgekit.codecs.entropy.temporal import Past

_PAST = (c_char_p, c_char_p)
_SHAPE = (c_int64, c_int64, c_int64, c_int64, c_int32)
_TABLES = (array("i2"), c_int32, array("u4"), c_int32)
_PLAN = (c_void_p, c_void_p, c_void_p)
_pack = Function(
    "edgekit_context_pack", array("i4"), *_PAST, *_SHAPE, *_TABLES, array("i2"), c_int64, *_PLAN, *ENCODER,
    result=c_int64,
)  # fmt: skip
_unpack = Function(
    "edgekit_context_unpack", c_char_p, c_int64, c_int64, *_PAST, *_SHAPE, *_TABLES, *_PLAN, *DECODER, array("i4"),
    result=c_int32,
)  # fmt: skip
_count = Function(
    "edgekit_context_count", array("i4"), *_PAST, *_SHAPE, c_int32, c_int64, c_void_p, array("i4"), result=c_int32
)  # fmt: skip
_logs = Function(
    "edgekit_context_logs", array("i4"), c_int64, c_int32, c_int32, array("i4"), c_int32, array("i2"), array("i2")
)  # fmt: skip


def pack(mix: Mixing, logs: np.ndarray, codes: np.ndarray, past: Optional[Past], bits_per_lane: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.context.pack` gives."""
    _check_groups(mix, codes)
    if _no_waves(codes.shape):
        return reference.pack(mix, logs, codes, past, bits_per_lane)
    *work, out = encoder_space(codes.size)
    given = (np.ascontiguousarray(codes, dtype=np.int32), *_memory(past), *codes.shape, mix.words)
    size = _pack(*given, *_tables(mix, logs), COST, bits_per_lane, *_plan(codes.shape, 1), *work, out)
    return string_at(out, size) if size >= 0 else reference.pack(mix, logs, codes, past, bits_per_lane)


def unpack(
    mix: Mixing, logs: np.ndarray, payload: bytes, start: int, shape: Sequence[int], past: Optional[Past]
) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.context.unpack` gives."""
    if _no_waves(shape):
        return reference.unpack(mix, logs, payload, start, shape, past)
    codes = np.empty(shape, dtype=np.int32)
    given = (payload, len(payload), start, *_memory(past), *shape, mix.words, *_tables(mix, logs))
    if _unpack(*given, *_plan(shape, shape[0]), *decoder_space(codes.size, len(payload)), codes):
        return reference.unpack(mix, logs, payload, start, shape, past)
    return codes


def count(mix: Mixing, counts: np.ndarray, codes: np.ndarray, past: Optional[Past]) -> None:
    """What `edgekit.codecs.entropy.reference.context.count` does."""
    _check_groups(mix, codes)
    if _no_waves(codes.shape):
        return
    given = (np.ascontiguousarray(codes, dtype=np.int32), *_memory(past), *codes.shape, mix.words)
    if _count(*given, len(mix.exponents), LIMIT, _plan(codes.shape, 1)[-1], counts):
        reference.check(mix, codes)


def logs(mix: Mixing, counts: np.ndarray) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.context.logs` gives."""
    tables = np.empty(counts.shape, dtype=np.int16)
    _logs(counts, mix.groups, mix.words, len(mix.exponents), mix.exponents, SCALE, LOG2, tables)
    return tables


def _check_groups(mix: Mixing, codes: np.ndarray) -> None:
    """What C cannot see. It says itself where an index is out of range."""
    if codes.ndim != 4 or codes.shape[1] != mix.groups:
        reference.check(mix, codes)


def _no_waves(shape: Sequence[int]) -> bool:
    """Whether planes of `shape` (n,G,h,w) have no positions: context.c lays out at least one wave of them."""
    return 0 in shape[1:]


def _memory(past: Optional[Past]) -> Tuple[bytes, bytes]:
    return (b"", b"") if past is None else past


def _tables(mix: Mixing, logs: np.ndarray) -> Tuple[np.ndarray, int, np.ndarray, int]:
    return logs, len(mix.exponents), mix.weights, len(mix.weights) - 1


def _plan(shape: Sequence[int], images: int) -> Tuple[Any, Any, Any]:
    """Memory for the order of the indices, and for so many images with their borders; as context.c wants it."""
    _, groups, height, width = shape
    waves = 3 * (groups - 1) + 2 * (height - 1) + width
    volume = 2 * images * (groups + 2) * (height + 2) * (width + 2)
    return space("waves", 8 * (2 * waves + 1)), space("numbers", 12 * groups * height * width), space("volume", volume)

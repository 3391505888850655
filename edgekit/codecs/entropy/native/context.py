"""Calls of context.c and counts.c."""

from ctypes import c_char_p, c_int32, c_int64
from typing import Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.entropy.mixing import LIMIT, LOG2, SCALE, Mixing
from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.native.rans import decoder_space, encoder_space
from edgekit.codecs.entropy.reference import context as reference
from edgekit.codecs.entropy.slots import COST

_SHAPE = (c_int64, c_int64, c_int64, c_int64, c_int32)
_TABLES = (array("i2"), c_int32, array("u4"), c_int32)
_PLAN = (array("i8"), array("i4"), array("u2"))
_pack = Function(
    "edgekit_context_pack", array("i4"), array("i2"), *_SHAPE, *_TABLES, array("i2"), c_int64, *_PLAN, array("u4"),
    array("i4"), array("u4"), array("u1"), result=c_int64,
)  # fmt: skip
_unpack = Function(
    "edgekit_context_unpack", c_char_p, c_int64, c_int64, array("i2"), *_SHAPE, *_TABLES, *_PLAN, array("i4"),
    array("u4"), array("u2"), array("i4"), result=c_int32,
)  # fmt: skip
_count = Function(
    "edgekit_context_count", array("i4"), array("i2"), *_SHAPE, c_int32, c_int64, array("u2"), array("i4")
)  # fmt: skip
_logs = Function(
    "edgekit_context_logs", array("i4"), c_int64, c_int32, c_int32, array("i4"), c_int32, array("i2"), array("i2")
)  # fmt: skip


def pack(mix: Mixing, logs: np.ndarray, codes: np.ndarray, past: Optional[np.ndarray], bits_per_lane: int) -> bytes:
    """What `edgekit.codecs.entropy.reference.context.pack` gives."""
    space = encoder_space(codes.size)
    given = (np.ascontiguousarray(codes, dtype=np.int32), _memory(past), *codes.shape, mix.words)
    size = _pack(*given, *_tables(mix, logs), COST, bits_per_lane, *_plan(codes.shape, 1), *space)
    return space[-1][:size].tobytes() if size >= 0 else reference.pack(mix, logs, codes, past, bits_per_lane)


def unpack(
    mix: Mixing, logs: np.ndarray, payload: bytes, start: int, shape: Sequence[int], past: Optional[np.ndarray]
) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.context.unpack` gives."""
    codes = np.empty(shape, dtype=np.int32)
    given = (payload, len(payload), start, _memory(past), *shape, mix.words, *_tables(mix, logs))
    if _unpack(*given, *_plan(shape, shape[0]), *decoder_space(codes.size, len(payload)), codes):
        return reference.unpack(mix, logs, payload, start, shape, past)
    return codes


def count(mix: Mixing, counts: np.ndarray, codes: np.ndarray, past: Optional[np.ndarray]) -> None:
    """What `edgekit.codecs.entropy.reference.context.count` does."""
    given = (np.ascontiguousarray(codes, dtype=np.int32), _memory(past), *codes.shape, mix.words)
    _count(*given, len(mix.exponents), LIMIT, _plan(codes.shape, 1)[-1], counts)


def logs(mix: Mixing, counts: np.ndarray) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.context.logs` gives."""
    tables = np.empty(counts.shape, dtype=np.int16)
    _logs(counts, mix.groups, mix.words, len(mix.exponents), mix.exponents, SCALE, LOG2, tables)
    return tables


def _memory(past: Optional[np.ndarray]) -> np.ndarray:
    return np.empty(0, dtype=np.int16) if past is None else past


def _tables(mix: Mixing, logs: np.ndarray) -> Tuple[np.ndarray, int, np.ndarray, int]:
    return logs, len(mix.exponents), mix.weights, len(mix.weights) - 1


def _plan(shape: Sequence[int], images: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Memory for the order of the indices, and for so many images with their borders."""
    _, groups, height, width = shape
    waves = 3 * (groups - 1) + 2 * (height - 1) + width
    numbers = np.empty(3 * groups * height * width, dtype=np.int32)
    volume = np.empty(images * (groups + 2) * (height + 2) * (width + 2), dtype=np.uint16)
    return np.empty(2 * waves + 1, dtype=np.int64), numbers, volume

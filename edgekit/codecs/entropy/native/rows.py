"""Calls of rows.c."""

from ctypes import c_char_p, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np

from edgekit.codecs.entropy.native.library import Function, array
from edgekit.codecs.entropy.native.space import space
from edgekit.codecs.entropy.reference import rows as reference
from edgekit.errors import PayloadError

#: GROUP in rows.c.
_GROUP = 4
#: Most values that are decoded anew, in plain Python, to say what is wrong with a payload: a second of its time.
_TOLD = 1 << 16
_ARRAYS = (array("i8"), array("i8"), c_int64, c_void_p)
_encode = Function("edgekit_rows_encode", array("i8"), *_ARRAYS, c_void_p, array("u1"), c_int64, result=c_int64)
_decode = Function("edgekit_rows_decode", c_char_p, c_int64, c_int64, *_ARRAYS, array("i8"), result=c_int32)


def encode(levels: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> bytes:
    """What `edgekit.codecs.entropy.reference.rows.encode` gives."""
    groups = _groups(sizes, rows)
    symbols = int((rows * (1 + groups)).sum()) + 6 * len(levels)
    out = np.empty(2 * symbols + 8, dtype=np.uint8)
    start = _encode(levels, sizes, rows, len(sizes), _around(groups), space("slots", 4 * symbols), out, len(out))
    return out[start:].tobytes() if start >= 0 else reference.encode(levels, sizes, rows)


def decode(payload: bytes, start: int, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What `edgekit.codecs.entropy.reference.rows.decode` gives; of many values errors say less."""
    levels = np.empty(int(sizes.sum()), dtype=np.int64)
    if _decode(payload, len(payload), start, sizes, rows, len(sizes), _around(_groups(sizes, rows)), levels):
        if len(levels) <= _TOLD:
            return reference.decode(payload, start, sizes, rows)
        told = "{} B that are no levels of {} values: damaged, or of other weights"
        raise PayloadError(told.format(len(payload) - start, len(levels)), start)
    return levels


def _groups(sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(arrays,) int64: groups of a row of each array."""
    return np.asarray((sizes // rows + _GROUP - 1) // _GROUP)


def _around(groups: np.ndarray) -> Any:
    """Memory for what is around the groups of a row; as rows.c wants it."""
    return space("around", 16 * (int(groups.max(initial=0)) + 2))

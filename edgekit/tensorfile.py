"""Named arrays <-> the safetensors format, with numpy alone: the library has no wheels for old boards.

A file is the header's length (eight bytes, little-endian), the header (JSON: name -> dtype, shape, data offsets), and
the data. A test compares this with the library in both directions.
"""

import json
import os
import struct
from typing import Any, Dict, Optional, Tuple

import numpy as np

from edgekit.errors import PayloadError, ShapeError, UsageError

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_METADATA = "__metadata__"
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


def dumps(arrays: Dict[str, np.ndarray], metadata: Optional[Dict[str, str]] = None) -> bytes:
    """The file's bytes. Tensors are in order of name, so that equal arrays give equal bytes.

    `metadata`: what the file says of itself besides, texts by name. ShapeError for a dtype that the format lacks.
    """
    header: Dict[str, Any] = {_METADATA: metadata} if metadata else {}
    chunks = []
    offset = 0
    for name in sorted(arrays):
        array = arrays[name]
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise ShapeError("tensor '{}' is {}, expected one of {}".format(name, dtype, ", ".join(map(str, _NAMES))))
        chunk = array.astype(dtype, copy=False).tobytes()
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(chunk)],
        }
        chunks.append(chunk)
        offset += len(chunk)
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return b"".join([struct.pack("<Q", len(raw)), raw, *chunks])


def make_folder(path: str) -> None:
    """Creates the folder `path` unless it exists; UsageError when that fails."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError("{} cannot be a folder: {}; choose another".format(path, error.strerror)) from None


def write(path: str, arrays: Dict[str, np.ndarray], metadata: Optional[Dict[str, str]] = None) -> None:
    """Writes what `dumps` gives to the file `path`, whole or not at all; UsageError when it cannot be written."""
    try:
        with open(path + ".new", "wb") as file:
            file.write(dumps(arrays, metadata))
        os.replace(path + ".new", path)
    except OSError as error:
        raise UsageError("{} cannot be written: {}".format(path, error.strerror)) from None


def loads(data: bytes) -> Dict[str, np.ndarray]:
    """The arrays of a safetensors file, as copies. PayloadError on any bytes that are not one."""
    header, length = _header(data)
    try:
        entries = [(*_entry(entry), name) for name, entry in header.items() if name != _METADATA]
    except (ValueError, KeyError, TypeError) as error:
        raise PayloadError("safetensors header does not parse: {!r}".format(error), 8) from None
    at = 8 + length
    arrays = {}
    # The tensors fill the rest of the file, without gaps and without overlaps.
    for begin, end, dtype, shape, name in sorted(entries, key=lambda entry: entry[:2]):
        count = 1
        for dimension in shape:
            count *= dimension
        if 8 + length + begin != at or end - begin != count * dtype.itemsize or 8 + length + end > len(data):
            raise PayloadError("tensor '{}' does not fit its bytes {}..{}".format(name, begin, end), at)
        try:
            arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
        except (ValueError, OverflowError) as error:
            raise PayloadError("tensor '{}' of shape {}: {}".format(name, list(shape), error), at) from None
        at = 8 + length + end
    if at != len(data):
        raise PayloadError("{} B after the last tensor".format(len(data) - at), at)
    return arrays


def metadata(data: bytes) -> Dict[str, str]:
    """What a safetensors file says of itself besides its tensors, texts by name. PayloadError when it has no header."""
    said = _header(data)[0].get(_METADATA, {})
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise PayloadError("safetensors metadata {!r:.100}: expected texts by name".format(said), 8)
    return said


def _header(data: bytes) -> Tuple[Dict[str, Any], int]:
    """The header of a file, and its length in bytes."""
    if len(data) < 8:
        raise PayloadError("safetensors file of {} B, expected at least 8".format(len(data)), len(data))
    (length,) = struct.unpack_from("<Q", data)
    if 8 + length > len(data):
        raise PayloadError("safetensors header of {} B ends past the file of {} B".format(length, len(data)))
    try:
        header = json.loads(data[8 : 8 + length].decode())
        if not isinstance(header, dict):
            raise ValueError("{!r:.100} is no object".format(header))
    except (ValueError, RecursionError) as error:
        raise PayloadError("safetensors header does not parse: {!r}".format(error), 8) from None
    return header, length


def _entry(entry: Dict[str, Any]) -> Tuple[int, int, "np.dtype[Any]", Tuple[int, ...]]:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if type(shape) is not list or any(type(value) is not int or value < 0 for value in [*shape, begin, end]):
        raise ValueError("shape {!r} and offsets {!r}..{!r} are not all counts".format(shape, begin, end))
    return begin, end, dtype, tuple(shape)

"""Parts of a message: payloads one after another, each behind its length.

======  ====  ======================================
offset  size  field
======  ====  ======================================
0       4     little-endian uint32: bytes of a part
4       n     the part; then the next one
======  ====  ======================================
"""

import struct
from typing import List, Optional, Sequence

from edgekit.errors import PayloadError

_LENGTH = struct.Struct("<I")


def join(parts: Sequence[bytes]) -> bytes:
    """
    >>> join([b"a", b""]).hex()
    '010000006100000000'
    """
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def split(message: bytes, expected: Optional[int] = None) -> List[bytes]:
    """The parts. PayloadError where `message` ends within one, or where they are not as many as `expected`."""
    parts: List[bytes] = []
    at = 0
    while at < len(message):
        if len(parts) == expected:
            raise PayloadError("{} B behind {} parts, expected none".format(len(message) - at, expected), at)
        if len(message) - at < _LENGTH.size:
            raise PayloadError("{} B at the end, expected the length of a part".format(len(message) - at), at)
        (size,) = _LENGTH.unpack_from(message, at)
        at += _LENGTH.size
        if size > len(message) - at:
            raise PayloadError("a part of {} B, only {} B are left".format(size, len(message) - at), at)
        parts.append(message[at : at + size])
        at += size
    if expected is not None and len(parts) != expected:
        raise PayloadError("{} parts, expected {}".format(len(parts), expected), at)
    return parts

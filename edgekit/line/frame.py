"""A message's content <-> frame: what crosses the network, byte for byte. `edgekit.line.messages` says what it means.

======  ====  =============================================================
offset  size  field (integers little-endian)
======  ====  =============================================================
0       3     magic ``EKW``
3       1     version, 2: of the frame and of what messages hold
4       1     kind, see `KINDS`
5       1     number of parts, P
6       2     length of the header, H
8       4     session id
12      4     step id
16      4     length of everything after byte 24
20      4     CRC-32 of the frame without these four bytes, begun with the message's number
24      H     header: one JSON object, UTF-8, no spaces
24+H    4P    length of each part
...           the parts, one after another
======  ====  =============================================================

Messages of a session that may go on over another line are numbered from 1, and each answer has the number of its
message; all others have 0. Both ends count, so numbers need no bytes: a message that is lost or comes twice shows as a
damaged one.

>>> encode(Message("ack", session=1, step=2)).hex()
'454b57020800000001000000020000000000000006fef7fd'
"""

import json
import struct
import zlib
from typing import Any, Dict, NamedTuple, Tuple

from edgekit.errors import PayloadError

MAGIC = b"EKW"
#: What a peer of another version sends is refused, whatever it is. 2: codebook updates are differences, entropy coded.
VERSION = 2
#: Larger frames are refused on both sides before anything is allocated for them.
MAX_FRAME = 1 << 28
#: The one method of the line: a bidirectional stream of frames, as bytes, no protobuf.
METHOD = "/edgekit.Line/Stream"
#: Kind of message -> its number in a frame, for ever.
KINDS = {
    "hello": 1,
    "welcome": 2,
    "feature": 3,
    "gradient": 4,
    "codebook": 5,
    "evaluate": 6,
    "result": 7,
    "ack": 8,
    "bye": 9,
    "error": 10,
    "ping": 11,
    "pong": 12,
    "update": 13,
    "weights": 14,
    "tested": 15,
    "tally": 16,
    "resume": 17,
    "resumed": 18,
    "save": 19,
    "saved": 20,
}
_KIND_NAMES = {number: name for name, number in KINDS.items()}
_HEAD = struct.Struct("<3sBBBHIII")
HEAD_SIZE = _HEAD.size + 4


class Message(NamedTuple):
    """The content of one frame: `header` holds small JSON values, `parts` the bulk as bytes."""

    kind: str
    session: int = 0
    step: int = 0
    header: Dict[str, Any] = {}  # noqa: RUF012 - never mutated; a NamedTuple default cannot be a factory
    parts: Tuple[bytes, ...] = ()


def encode(message: Message, number: int = 0) -> bytes:
    """The frame of `message`, which has this `number`.

    PayloadError when it exceeds MAX_FRAME, 65,535 header bytes or 255 parts.
    """
    header = json.dumps(message.header, separators=(",", ":")).encode() if message.header else b""
    size = HEAD_SIZE + len(header) + sum(4 + len(part) for part in message.parts)
    if size > MAX_FRAME or len(header) > 0xFFFF or len(message.parts) > 0xFF:
        raise PayloadError(
            "a {} message of {} B (header {} B, {} parts) is over the frame limits: {} B, 65535 B, 255 parts; "
            "send smaller batches".format(message.kind, size, len(header), len(message.parts), MAX_FRAME)
        )
    lengths = struct.pack("<{}I".format(len(message.parts)), *(len(part) for part in message.parts))
    body = b"".join((header, lengths, *tuple(message.parts)))
    head = _HEAD.pack(
        MAGIC, VERSION, KINDS[message.kind], len(message.parts), len(header), message.session, message.step, len(body)
    )
    return b"".join((head, struct.pack("<I", zlib.crc32(body, zlib.crc32(head, number))), body))


def decode(frame: bytes, number: int = 0) -> Message:
    """The message of `frame`, which is to have this `number`. Any bytes give one or PayloadError, nothing else."""
    if len(frame) < HEAD_SIZE:
        raise PayloadError("frame of {} B, expected at least {}".format(len(frame), HEAD_SIZE), len(frame))
    magic, version, kind, n_parts, header_length, session, step, length = _HEAD.unpack_from(frame)
    if magic != MAGIC:
        raise PayloadError("not an edgekit frame: starts with {!r}, expected {!r}".format(magic, MAGIC))
    if version != VERSION:
        raise PayloadError("frame version {}, this side speaks {}: update the older side".format(version, VERSION), 3)
    if kind not in _KIND_NAMES:
        raise PayloadError("unknown message kind {}".format(kind), 4)
    if len(frame) > MAX_FRAME:
        raise PayloadError("frame of {} B, at most {} are taken".format(len(frame), MAX_FRAME), 16)
    if HEAD_SIZE + length != len(frame):
        raise PayloadError("frame of {} B says it has {}".format(len(frame), HEAD_SIZE + length), 16)
    (crc,) = struct.unpack_from("<I", frame, _HEAD.size)
    actual = zlib.crc32(memoryview(frame)[HEAD_SIZE:], zlib.crc32(frame[: _HEAD.size], number))
    if crc != actual:
        told = "checksum {:08x}, expected {:08x}: damaged on the way, or one before it was lost"
        raise PayloadError(told.format(actual, crc), _HEAD.size)
    start = HEAD_SIZE + header_length
    if start + 4 * n_parts > len(frame):
        raise PayloadError("header and part table end past the frame", HEAD_SIZE)
    header = _header(frame[HEAD_SIZE:start])
    lengths = struct.unpack_from("<{}I".format(n_parts), frame, start)
    start += 4 * n_parts
    if start + sum(lengths) != len(frame):
        raise PayloadError("parts of {} B in all, {} B are there".format(sum(lengths), len(frame) - start), start)
    parts = []
    for n in lengths:
        parts.append(frame[start : start + n])
        start += n
    return Message(_KIND_NAMES[kind], session, step, header, tuple(parts))


def _header(raw: bytes) -> Dict[str, Any]:
    if not raw:
        return {}
    try:
        header = json.loads(raw.decode())
        # Escapes can spell half a surrogate pair, which could not be printed or written to a record.
        json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise PayloadError("header is no JSON: {}".format(error), HEAD_SIZE) from None
    if not isinstance(header, dict):
        raise PayloadError("header is a JSON {}, expected an object".format(type(header).__name__), HEAD_SIZE)
    return header

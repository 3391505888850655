"""Frames: exact bytes, round trips, and the promise that any bytes are a Message or a PayloadError."""

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PayloadError
from edgekit.line import frame
from edgekit.line.frame import HEAD_SIZE, KINDS, Message, decode, encode

FEATURE = Message("feature", session=7, step=258, header={"n": 2, "v": 1}, parts=(b"\x03\x01", b"", b"\xca\xfe\xba"))
FRAME = encode(FEATURE)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)
messages = st.builds(
    Message,
    kind=st.sampled_from(sorted(KINDS)),
    session=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
    header=st.dictionaries(st.text(), json_values, max_size=4),
    parts=st.lists(st.binary(max_size=40), max_size=5).map(tuple),
)


def framed(body, *, magic=b"EKW", version=2, kind=8, n_parts=0, header=0, session=0, step=0, length=None):
    """A frame whose checksum is right, whatever else is said."""
    length = len(body) if length is None else length
    head = struct.pack("<3sBBBHIII", magic, version, kind, n_parts, header, session, step, length)
    return head + struct.pack("<I", zlib.crc32(head + body)) + body


def test_the_bytes_of_a_frame():
    expected = (
        "454b57" "02" "03" "03"  # magic, version, kind feature, three parts
        "0d00" "07000000" "02010000"  # 13 bytes of header, session 7, step 258
        "1e000000" "ca4c002e"  # 30 bytes follow, CRC-32
        "7b226e223a322c2276223a317d"  # {"n":2,"v":1}
        "02000000" "00000000" "03000000"  # lengths of the parts
        "0301" "cafeba"
    )  # fmt: skip
    assert FRAME.hex() == expected
    assert decode(bytes.fromhex(expected)) == FEATURE


def test_no_kind_ever_changes_its_number():
    assert KINDS == {
        "hello": 1, "welcome": 2, "feature": 3, "gradient": 4, "codebook": 5,
        "evaluate": 6, "result": 7, "ack": 8, "bye": 9, "error": 10,
        "ping": 11, "pong": 12, "update": 13, "weights": 14, "tested": 15, "tally": 16, "resume": 17,
        "resumed": 18,
        "save": 19,
        "saved": 20,
    }  # fmt: skip


def test_the_smallest_frame_is_the_head_alone():
    assert encode(Message("ack")) == framed(b"")
    assert decode(framed(b"")) == Message("ack")
    assert len(framed(b"")) == HEAD_SIZE == 24


@given(messages)
def test_what_is_encoded_comes_back(message):
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_payload_error(data):
    try:
        assert isinstance(decode(data), Message)
    except PayloadError as error:
        assert 0 <= error.offset <= len(data)


@given(
    st.binary(max_size=80) | json_values.map(lambda v: json.dumps(v).encode()),
    st.integers(0, 255), st.integers(0, 3), st.integers(0, 90),
)  # fmt: skip
def test_any_body_under_a_right_checksum_is_a_message_or_a_payload_error(body, kind, n_parts, header):
    try:
        message = decode(framed(body, kind=kind, n_parts=n_parts, header=header))
    except PayloadError as error:
        assert 0 <= error.offset <= HEAD_SIZE + len(body)
    else:
        assert isinstance(message.header, dict)
        assert len(message.parts) == n_parts
        assert header + 4 * n_parts + sum(map(len, message.parts)) == len(body)


def test_a_truncated_frame_is_refused():
    for length in range(len(FRAME)):
        with pytest.raises(PayloadError):
            decode(FRAME[:length])


def test_a_longer_frame_is_refused():
    with pytest.raises(PayloadError, match=f"frame of {len(FRAME) + 1} B says it has {len(FRAME)}"):
        decode(FRAME + b"\0")


def test_a_flipped_bit_is_refused():
    for bit in range(8 * len(FRAME)):
        damaged = bytearray(FRAME)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PayloadError):
            decode(bytes(damaged))


@pytest.mark.parametrize(
    ("frame", "reason", "offset"),
    [
        (b"", "frame of 0 B, expected at least 24", 0),
        (b"GET / HTTP/1.1\r\nHost: edge\r\n", "not an edgekit frame: starts with b'GET'", 0),
        (framed(b"", version=1), "frame version 1, this side speaks 2: update the older side", 3),
        (framed(b"", version=3), "frame version 3, this side speaks 2: update the older side", 3),
        (framed(b"", kind=0), "unknown message kind 0", 4),
        (framed(b"", kind=21), "unknown message kind 21", 4),
        (framed(b"", length=1), "frame of 24 B says it has 25", 16),
        (framed(b"", length=2**32 - 1), "frame of 24 B says it has", 16),
        (FRAME[:-1] + b"\xbb", "checksum .* damaged on the way", 20),
        (framed(b"{}", header=3), "end past the frame", 24),
        (framed(b"{}12", header=2, n_parts=1), "end past the frame", 24),
        (framed(b"{}\2\0\0\0x", header=2, n_parts=1), "parts of 2 B in all, 1 B are there", 30),
        (framed(b"{}rest", header=2), "parts of 0 B in all, 4 B are there", 26),
        (framed(b"\xff\xff\xff\xff" * 2 + b"xy", n_parts=2), "parts of 8589934590 B in all", 32),
        (framed(b"[]", header=2), "header is a JSON list, expected an object", 24),
        (framed(b"{", header=1), "header is no JSON", 24),
        (framed(b"\xff", header=1), "header is no JSON", 24),
        (framed(b"[" * 60_000, header=60_000), "header is no JSON", 24),
        (framed(b'{"n":"\\ud800"}', header=14), "header is no JSON", 24),
        (framed(b'{"n":' + b"9" * 5000 + b"}", header=5006), "header is no JSON", 24),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(frame, reason, offset):
    with pytest.raises(PayloadError, match=reason) as caught:
        decode(frame)
    assert caught.value.offset == offset


def test_limits(monkeypatch):
    assert decode(encode(Message("ack", parts=(b"",) * 255))).parts == (b"",) * 255
    with pytest.raises(PayloadError, match="256 parts"):
        encode(Message("ack", parts=(b"",) * 256))
    longest = {"a": "x" * (0xFFFF - 8)}
    assert decode(encode(Message("ack", header=longest))).header == longest
    with pytest.raises(PayloadError, match="header 65536 B"):
        encode(Message("ack", header={"a": "x" * (0xFFFF - 7)}))
    monkeypatch.setattr(frame, "MAX_FRAME", 100)
    largest = encode(Message("ack", parts=(b"x" * 72,)))
    assert len(largest) == 100 and decode(largest).parts == (b"x" * 72,)
    with pytest.raises(PayloadError, match=r"a feature message of 101 B .* send smaller batches"):
        encode(Message("feature", parts=(b"x" * 73,)))
    monkeypatch.setattr(frame, "MAX_FRAME", 99)
    with pytest.raises(PayloadError, match="frame of 100 B, at most 99"):
        decode(largest)


class _Huge(bytes):
    """Says that it holds more than fits a frame."""

    def __len__(self):
        return 1 << 33


def test_a_part_too_large_is_refused_before_it_is_copied():
    with pytest.raises(PayloadError, match="send smaller batches"):
        encode(Message("feature", parts=(_Huge(),)))


def test_a_frame_in_the_wrong_place_shows_as_a_damaged_one():
    numbered = encode(FEATURE, 7)
    assert decode(numbered, 7) == FEATURE and len(numbered) == len(FRAME) and encode(FEATURE, 0) == FRAME
    for number in (0, 6, 8):
        with pytest.raises(PayloadError, match="damaged on the way, or one before it was lost"):
            decode(numbered, number)

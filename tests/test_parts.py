"""Parts of a message: there and back, and any other bytes are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PayloadError
from edgekit.parts import join, split


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_parts_come_back(parts: list[bytes]) -> None:
    message = join(parts)
    assert split(message) == split(message, len(parts)) == parts
    assert len(message) == sum(map(len, parts)) + 4 * len(parts)


@given(st.binary(max_size=60))
def test_any_bytes_are_parts_or_refused(message: bytes) -> None:
    try:
        assert join(split(message)) == message
    except PayloadError as error:
        assert 0 <= error.offset <= len(message)


@pytest.mark.parametrize("message", [b"\1", b"\1\0\0\0", b"\2\0\0\0a", b"\0\0\0\0\0"])
def test_a_message_that_ends_within_a_part_is_refused(message: bytes) -> None:
    with pytest.raises(PayloadError):
        split(message)


def test_another_number_of_parts_is_refused() -> None:
    with pytest.raises(PayloadError, match="1 parts, expected 2"):
        split(join([b"a"]), 2)
    # It stops there: what is behind may be millions of empty parts.
    with pytest.raises(PayloadError, match="7 B behind 2 parts, expected none") as caught:
        split(join([b"a", b"bc"]) + b"\xff" * 7, 2)
    assert caught.value.offset == 11

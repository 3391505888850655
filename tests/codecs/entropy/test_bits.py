"""Fixed-width bit packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.codecs.entropy.bits import pack, size, unpack
from edgekit.errors import PayloadError

WIDTHS = range(1, 17)
pytestmark = pytest.mark.usefixtures("coder")


def by_hand(values, bits):
    """The same by a string of ones and zeros."""
    text = "".join(f"{v:0{bits}b}" for v in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 33])
def test_bytes_by_hand_and_back(bits, count):
    values = np.random.default_rng(count).integers(0, 2**bits, count, dtype=np.int32)
    payload = pack(values, bits)
    assert payload == by_hand(values.tolist(), bits)
    assert len(payload) == size(count, bits)
    back = unpack(payload, count, bits)
    np.testing.assert_array_equal(back, values)
    assert back.dtype == np.int32 and back.shape == (count,)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "uint16"])
@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_any_integer_type_shape_and_memory_order(dtype, bits):
    values = (np.arange(24) % 2**bits).astype(dtype).reshape(2, 3, 4)
    expected = by_hand(values.reshape(-1).tolist(), bits)
    assert pack(values, bits) == pack(np.asfortranarray(values), bits) == expected
    turned = values.transpose(2, 0, 1)
    assert pack(turned, bits) == by_hand(turned.reshape(-1).tolist(), bits)


@given(st.data(), st.sampled_from(WIDTHS), st.integers(0, 40))
def test_any_bytes_are_values_or_a_payload_error(data, bits, count):
    payload = data.draw(st.binary(min_size=size(count, bits), max_size=size(count, bits)) | st.binary(max_size=90))
    try:
        values = unpack(payload, count, bits)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)
        return
    assert values.min(initial=0) >= 0 and values.max(initial=0) < 2**bits
    assert pack(values, bits) == payload  # one spelling only


@pytest.mark.parametrize("bits", WIDTHS)
def test_another_length_is_refused_where_it_goes_wrong(bits):
    payload = pack(np.zeros(5, np.int32), bits)
    with pytest.raises(
        PayloadError, match=f"5 values of {bits} bits take {len(payload)} B, got {len(payload) + 1} B"
    ) as caught:
        unpack(payload + b"\0", 5, bits)
    assert caught.value.offset == len(payload)
    with pytest.raises(PayloadError) as caught:
        unpack(payload[:-1], 5, bits)
    assert caught.value.offset == len(payload) - 1


def test_spare_bits_must_be_zero():
    assert unpack(b"\xff\xf0", 3, 4).tolist() == [15, 15, 15]
    with pytest.raises(PayloadError, match="the last 4 bits of 2 B are not zero") as caught:
        unpack(b"\xff\xf1", 3, 4)
    assert caught.value.offset == 1
    with pytest.raises(PayloadError, match="the last 7 bits of 1 B"):
        unpack(b"\x81", 1, 1)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_reading_may_start_further_on(bits):
    values = np.array([1, 2, 3, 5, 7], np.int32)
    payload = pack(values, bits)
    np.testing.assert_array_equal(unpack(b"head" + payload, 5, bits, start=4), values)
    np.testing.assert_array_equal(unpack(b"head", 0, bits, start=4), values[:0])
    with pytest.raises(PayloadError) as caught:
        unpack(b"head" + payload[:-1], 5, bits, start=4)
    assert caught.value.offset == 4 + len(payload) - 1

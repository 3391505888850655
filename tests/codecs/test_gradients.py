import struct

import numpy as np
import pytest

from edgekit.codecs.gradients.raw import Raw
from edgekit.codecs.gradients.stochastic import Stochastic
from edgekit.codecs.gradients.ternary import Ternary
from edgekit.errors import PayloadError, UsageError

RNG = np.random.default_rng(0)


def test_raw_is_exact_and_skips_what_is_masked() -> None:
    gradient = np.array([[[[0.1, -2.0, 3.5]]]], dtype=np.float32)
    mask = np.array([[[[True, False, True]]]])
    assert Raw().pack(gradient, None, RNG) == struct.pack("<3f", 0.1, -2.0, 3.5)
    payload = Raw().pack(gradient, mask, RNG)
    assert payload == struct.pack("<2f", 0.1, 3.5)
    assert Raw().unpack(payload, gradient.shape, mask).tolist() == [[[[np.float32(0.1), 0.0, 3.5]]]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_raw_refuses_what_is_no_number_and_says_where(value: float) -> None:
    with pytest.raises(PayloadError, match="expected finite") as caught:
        Raw().unpack(struct.pack("<3f", 1.0, 2.0, value), (1, 3, 1, 1), None)
    assert caught.value.offset == 8


def test_stochastic_payload_field_by_field() -> None:
    gradient = np.array([[[[7.0, -7.0, 3.0]]], [[[0.0, 0.0, 0.0]]], [[[-0.5, 0.5, 0.0]]]], dtype=np.float32)
    payload = Stochastic(bits=4).pack(gradient, None, RNG)
    assert struct.unpack("<3f", payload[:12]) == (7.0, 0.0, 0.5)
    assert payload[12:].hex() == "e0a7770e70"
    np.testing.assert_array_equal(Stochastic(bits=4).unpack(payload, gradient.shape, None), gradient)


def test_the_scale_is_of_the_elements_that_are_sent() -> None:
    gradient = np.array([[[[100.0, 2.0, -1.0]]]], dtype=np.float32)
    mask = np.array([[[[False, True, True]]]])
    payload = Stochastic(bits=2).pack(gradient, mask, RNG)
    assert struct.unpack("<f", payload[:4]) == (2.0,) and len(payload) == 5


@pytest.mark.parametrize("codec", [Stochastic(2), Stochastic(4), Stochastic(8), Ternary()], ids=repr)
@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_is_none_is_refused_with_its_offset(codec: Stochastic | Ternary, scale: float) -> None:
    good = codec.pack(np.ones((3, 2, 1, 1), np.float32), None, RNG)
    bad = good[:4] + struct.pack("<f", scale) + good[8:]
    with pytest.raises(PayloadError, match="scale of image 1") as caught:
        codec.unpack(bad, (3, 2, 1, 1), None)
    assert caught.value.offset == 4


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_one_level_that_is_never_written_is_refused_with_its_offset(bits: int) -> None:
    shape = (1, 9, 1, 1)
    good = bytearray(Stochastic(bits).pack(-np.ones(shape, np.float32), None, RNG))
    assert not any(good[4:]), "the lowest level is written as zeros"
    first = 4 + 7 * bits // 8
    for bit in range(7 * bits, 8 * bits):
        good[4 + bit // 8] |= 0x80 >> bit % 8
    with pytest.raises(PayloadError, match="element 7 has level") as caught:
        Stochastic(bits).unpack(bytes(good), shape, None)
    assert caught.value.offset == first


def test_ternary_packs_five_to_a_byte() -> None:
    gradient = np.array([1, 1, 1, 1, 1, -1, 0, 1], dtype=np.float32).reshape(1, 8, 1, 1)
    payload = Ternary().pack(gradient, None, RNG)
    assert list(payload[4:]) == [242, 0 * 81 + 1 * 27 + 2 * 9]
    np.testing.assert_array_equal(Ternary().unpack(payload, gradient.shape, None), gradient)


@pytest.mark.parametrize("byte", [243, 255])
def test_a_byte_that_holds_no_trits_is_refused_with_its_offset(byte: int) -> None:
    with pytest.raises(PayloadError, match=f"byte {byte} holds no five trits") as caught:
        Ternary().unpack(struct.pack("<fBB", 1.0, 0, byte), (1, 8, 1, 1), None)
    assert caught.value.offset == 5


@pytest.mark.parametrize("codec", [Stochastic(), Ternary()], ids=repr)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_gradient_is_refused_before_it_is_sent(codec: Stochastic | Ternary, value: float) -> None:
    gradient = np.ones((2, 2, 1, 1), np.float32)
    gradient[1, 1] = value
    with pytest.raises(UsageError, match="diverged"):
        codec.pack(gradient, None, RNG)


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_stochastic_takes_two_to_eight_bits(bits: int) -> None:
    with pytest.raises(UsageError, match="2 to 8 bits"):
        Stochastic(bits)

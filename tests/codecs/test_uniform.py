"""uniform: steps between the batch's smallest and largest value."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.codecs.features.uniform import Uniform
from edgekit.errors import PayloadError, UsageError

pytestmark = pytest.mark.usefixtures("coder")
each_codec = pytest.mark.parametrize("codec", [Uniform(bits) for bits in range(2, 9)], ids=repr)


def feature(low=0.0, high=3.0):
    return np.linspace(low, high, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@each_codec
@pytest.mark.parametrize(("low", "high"), [(0, 3), (-2, 5), (4, 4.5), (-1e-3, 1e-3)])
def test_the_error_is_at_most_half_a_step(codec, low, high):
    z = feature(low, high)
    codes = codec.quantize(z, {})
    assert codes["low"] == z.min() and codes["high"] == z.max()
    assert codes["codes"].min() == 0 and codes["codes"].max() == 2**codec.bits - 1
    step = (high - low) / (2**codec.bits - 1)
    assert np.abs(codec.dequantize(codes, {}) - z).max() <= step / 2 * 1.001 + 1e-6 * abs(high)


@each_codec
def test_the_ends_are_exact(codec):
    decoded = codec.dequantize(codec.quantize(feature(), {}), {})
    assert decoded.min() == 0 and decoded.max() == pytest.approx(3, rel=1e-6)


@each_codec
@pytest.mark.parametrize("value", [0.0, 2.5, -7.0])
def test_a_constant_feature_comes_back(codec, value):
    z = np.full((1, 2, 3, 3), value, np.float32)
    codes = codec.quantize(z, {})
    assert not codes["codes"].any()
    np.testing.assert_array_equal(codec.dequantize(codes, {}), z)


@given(hnp.arrays(np.float32, (1, 2, 2, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)), st.integers(2, 8))
def test_codes_fit_their_bits_whatever_the_range(z, bits):
    codec = Uniform(bits)
    codes = codec.quantize(z, {})
    assert codes["codes"].min() >= 0 and codes["codes"].max() < 2**bits
    again = codec.unpack(codec.pack(codes), z.shape)
    assert all(np.array_equal(codes[name], again[name]) for name in codes)
    assert np.isfinite(codec.dequantize(again, {})).all()


@pytest.mark.parametrize("bits", [1, 9, 0, -4, 4.0, "4", None])
def test_an_impossible_width_is_refused(bits):
    with pytest.raises(UsageError, match="uniform takes 2 to 8 bits"):
        Uniform(bits)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1, 0), (float("nan"), 1), (0, float("nan")), (0, float("inf")), (float("-inf"), 0), (-3.4e38, 3.4e38), (0, 2e38)],
)
def test_a_range_that_is_none_is_refused(low, high):
    with pytest.raises(PayloadError, match="uniform range") as caught:
        Uniform(4).unpack(struct.pack("<ff", low, high) + b"\0", (1, 2, 1, 1))
    assert caught.value.offset == 0


def test_the_widest_range_decodes_without_overflow():
    codec = Uniform(8)
    codes = codec.unpack(struct.pack("<ff", -1e38, 1e38) + b"\0\xff", (1, 2, 1, 1))
    np.testing.assert_allclose(codec.dequantize(codes, {}).reshape(-1), [-1e38, 1e38], rtol=1e-6)


def test_an_offset_counts_from_the_start_of_the_payload():
    payload = struct.pack("<ff", 0, 1) + b"\x12"
    assert Uniform(4).unpack(payload, (1, 2, 1, 1))["codes"].reshape(-1).tolist() == [1, 2]
    for damaged, offset in [(payload[:5], 5), (payload[:8], 8), (payload + b"\0", 9)]:
        with pytest.raises(PayloadError) as caught:
            Uniform(4).unpack(damaged, (1, 2, 1, 1))
        assert caught.value.offset == offset


def test_active_is_where_the_decoded_value_is_not_about_zero():
    def active(low, high):
        codes = Uniform(2).quantize(np.linspace(low, high, 4, dtype=np.float32).reshape(1, 4, 1, 1), {})
        return Uniform(2).active(codes, {}).reshape(-1).tolist()

    assert active(0, 3) == [False, True, True, True]  # after a ReLU
    assert active(5, 8) == [True] * 4  # nothing is zero
    assert active(-2, 1) == [True, True, False, True]  # before a ReLU
    assert active(0, 0) == [False] * 4

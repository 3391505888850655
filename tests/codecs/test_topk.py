"""topk: the largest magnitudes of every image, with Elias-Fano positions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.codecs.features.topk import TopK
from edgekit.errors import PayloadError, UsageError

pytestmark = pytest.mark.usefixtures("coder")
each_codec = pytest.mark.parametrize("codec", [TopK(bits) for bits in range(2, 9)], ids=repr)


def feature(seed=0, shape=(3, 16, 4, 5)):
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


@each_codec
@pytest.mark.parametrize("shape", [(128, 8, 8), (16, 4, 5), (7, 3, 3), (64, 112, 112)])
def test_as_many_as_the_bytes_of_uniform_allow(codec, shape):
    total, kept, low, high = layout = codec.layout(shape)
    assert total == math.prod(shape)
    assert high + kept * (low + 16) == codec.formula_bits(shape) <= total * codec.bits
    for other in range(17):  # one more does not fit, whatever is split off
        buckets = math.ceil(total / 2**other)
        assert kept + 1 > total or buckets + (kept + 1) * (17 + other) > total * codec.bits
    # Within a bit and a half of what any code of positions takes on average.
    entropy = math.lgamma(total + 1) - math.lgamma(kept + 1) - math.lgamma(total - kept + 1)
    assert (layout.high + kept * low) / kept <= entropy / math.log(2) / kept + (1.5 if codec.bits < 7 else 2.5)


def test_at_the_default_cut():
    assert TopK(bits=4).layout((128, 8, 8)) == (8192, 1616, 2, 3664)
    z = feature(shape=(2, 128, 8, 8))
    assert len(TopK(bits=4).pack({"codes": z})) == 2 * (3664 // 8 + 1616 * 2 // 8 + 1616 * 2) == 2 * 4094


@each_codec
def test_the_largest_magnitudes_arrive_and_nothing_else(codec):
    z = feature() * np.where(np.arange(16) % 3, 1, -2)[:, None, None].astype(np.float32)
    arrived = codec.unpack(codec.pack({"codes": z}), z.shape)["codes"]
    kept = codec.layout(z.shape[1:]).kept
    for image, sent in zip(z.reshape(3, -1), arrived.reshape(3, -1), strict=True):
        largest = np.sort(np.argsort(-np.abs(image), kind="stable")[:kept])
        expected = np.zeros_like(image)
        expected[largest] = image[largest].astype(np.float16)
        np.testing.assert_array_equal(sent, expected)


def test_of_equal_magnitudes_the_first_are_sent():
    z = np.array([3, -1, 1, 1, -1, 1, 1, 1], np.float32).reshape(1, 8, 1, 1)
    arrived = TopK(bits=8).unpack(TopK(bits=8).pack({"codes": z}), z.shape)["codes"]
    assert arrived.reshape(-1).tolist() == [3, -1, 1, 0, 0, 0, 0, 0]


def test_values_beyond_float16_are_cut():
    z = np.array([1e30, -1e30, 1, 0], np.float32).reshape(1, 4, 1, 1)
    decoded = TopK(bits=8).dequantize({"codes": z}, {}).reshape(-1)
    assert decoded[0] == 65504 and np.isfinite(decoded).all()


def test_one_value_is_sent_of_the_smallest_feature():
    z = np.full((2, 1, 1, 1), 5, np.float32)
    assert TopK(bits=2).unpack(TopK(bits=2).pack({"codes": z}), z.shape)["codes"].tolist() == z.tolist()


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=4, max_dims=4, max_side=5),
        elements=st.sampled_from([0.0, -0.0, 1.0, -1.0]) | st.floats(-(2.0**20), 2.0**20, width=32),
    ),
    st.integers(2, 8),
)
def test_both_sides_make_the_same_of_any_feature(z, bits):
    codec = TopK(bits)
    payload = codec.pack({"codes": z})
    arrived = codec.unpack(payload, z.shape)
    assert codec.pack(arrived) == payload
    assert codec.dequantize(arrived, {}).tobytes() == codec.dequantize({"codes": z}, {}).tobytes()
    np.testing.assert_array_equal(codec.active(arrived, {}), codec.active({"codes": z}, {}))
    np.testing.assert_array_equal(arrived["codes"], codec.dequantize(arrived, {}))


@given(st.data(), st.integers(2, 8))
@settings(max_examples=60)
def test_damage_anywhere_is_refused_or_decodes(data, bits):
    codec, z = TopK(bits), feature(shape=(2, 3, 2, 3))
    payload = bytearray(codec.pack({"codes": z}))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        codes = codec.unpack(bytes(payload), z.shape)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)
        return
    assert np.isfinite(codec.dequantize(codes, {})).all()


def parts(codec, z):
    """The payload's bitmap, low bits and values; and where they start."""
    _, kept, low, high = codec.layout(z.shape[1:])
    payload = codec.pack({"codes": z})
    ends = -(-len(z) * high // 8), -(-len(z) * high // 8) - (-len(z) * kept * low // 8)
    assert len(payload) == ends[1] + 2 * len(z) * kept
    return bytearray(payload), ends


def test_what_pack_does_not_write_is_refused_where_it_is():
    codec, z = TopK(bits=4), feature(shape=(2, 8, 3, 3))  # 72 values an image
    payload, (lows, values) = parts(codec, z)
    assert codec.layout(z.shape[1:])[1:] == (14, 2, 32)
    damaged = payload.copy()
    damaged[0] ^= 0x80
    with pytest.raises(PayloadError, match="does not mark 14 positions") as caught:
        codec.unpack(bytes(damaged), z.shape)
    assert caught.value.offset == 0
    damaged = payload.copy()
    # All 14 bits in a row: one bucket, of four positions.
    damaged[:4] = (0xFFFC0000).to_bytes(4, "big")
    with pytest.raises(PayloadError, match="do not ascend below 72") as caught:
        codec.unpack(bytes(damaged), z.shape)
    assert caught.value.offset == lows
    damaged = payload.copy()
    damaged[values : values + 2] = np.float16("inf").tobytes()
    with pytest.raises(PayloadError, match="not finite") as caught:
        codec.unpack(bytes(damaged), z.shape)
    assert caught.value.offset == values
    for wrong in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(PayloadError, match=f"of {len(wrong)} B, expected {len(payload)} B") as caught:
            codec.unpack(bytes(wrong), z.shape)
        assert caught.value.offset == min(len(wrong), len(payload))


def test_a_position_beyond_the_end_is_refused():
    codec, shape = TopK(bits=4), (1, 10, 1, 1)  # buckets of a power of two hold more than ten
    total, kept, low, high = codec.layout(shape[1:])
    assert kept == 1 and (1 << low) * (high - kept) > total
    bitmap = np.zeros(high, np.uint8)
    bitmap[-1] = 1
    bits = [*bitmap, *[0] * (-len(bitmap) % 8), *[1] * low, *[0] * (-low % 8)]
    with pytest.raises(PayloadError, match="do not ascend below 10"):
        codec.unpack(np.packbits(bits).tobytes() + bytes(2), shape)


@pytest.mark.parametrize("bits", [1, 9, 0, 4.0, "4", None])
def test_an_impossible_width_is_refused(bits):
    with pytest.raises(UsageError, match="topk takes 2 to 8 bits"):
        TopK(bits)

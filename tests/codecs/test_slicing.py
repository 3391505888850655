"""slicing: the leading channels in 32-bit floats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.codecs.features.slicing import Slicing
from edgekit.codecs.features.uniform import Uniform
from edgekit.errors import PayloadError, ShapeError, UsageError

SHAPE = (2, 32, 3, 5)


def feature(seed=0):
    """Channels of energies that grow in a shuffled order."""
    rng = np.random.default_rng(seed)
    strength = np.random.default_rng(7).permutation(32) + 1
    return (rng.normal(size=SHAPE) * strength[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_bytes_are_those_of_uniform_without_its_range(bits):
    codec, tables = Slicing(bits), Slicing(bits).calibrate(feature(), 0)
    payload = codec.pack(codec.quantize(feature(), tables))
    assert len(payload) == len(Uniform(bits).pack(Uniform(bits).quantize(feature(), {}))) - 8
    assert 8 * len(payload) == SHAPE[0] * codec.formula_bits(SHAPE[1:])


@pytest.mark.parametrize(("channels", "bits", "kept"), [(128, 4, 16), (128, 8, 32), (12, 4, 1), (20, 5, 3), (1, 2, 1)])
def test_how_many_channels_are_sent(channels, bits, kept):
    assert Slicing(bits).kept(channels) == kept


def test_the_channels_of_most_energy_come_exactly_and_the_rest_as_zeros():
    codec = Slicing(bits=4)
    tables = codec.calibrate(feature(), 0)
    energy = (feature() ** 2).sum(axis=(0, 2, 3))
    assert tables["order"].tolist() == np.argsort(-energy).tolist()
    z = feature(1)[:, codec.order(32, tables)]
    codes = codec.unpack(codec.pack(codec.quantize(z, tables)), SHAPE)
    decoded = codec.dequantize(codes, tables)
    np.testing.assert_array_equal(decoded[:, :4], z[:, :4])
    assert not decoded[:, 4:].any() and decoded.dtype == np.float32
    active = codec.active(codes, tables)
    assert active[:, :4].all() and not active[:, 4:].any()


def test_a_given_significance_decides():
    significance = np.random.default_rng(1).random(32).astype(np.float32)
    order = Slicing().calibrate(feature(), 0, significance=significance)["order"]
    assert (np.diff(significance[order]) <= 0).all() and order.dtype == np.int64


def test_equally_important_channels_keep_their_order():
    assert Slicing().calibrate(np.ones((2, 8, 2, 2), np.float32), 0)["order"].tolist() == list(range(8))


@given(hnp.arrays(np.float32, (2, 9, 2, 1), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_what_is_sent_comes_back_bit_for_bit(z):
    codec = Slicing(bits=8)
    codes = codec.unpack(codec.pack(codec.quantize(z, {})), z.shape)["codes"]
    assert codes.shape == (2, 2, 2, 1) and codes.tobytes() == z[:, :2].tobytes()


def test_the_memory_order_of_a_view_does_not_matter():
    codec, z = Slicing(bits=4), feature()
    strided = np.asfortranarray(z)
    assert codec.pack(codec.quantize(strided, {})) == codec.pack(codec.quantize(z, {}))


@pytest.mark.parametrize("bits", [1, 9, 4.0, "4", None])
def test_an_impossible_width_is_refused(bits):
    with pytest.raises(UsageError, match="slicing takes 2 to 8 bits"):
        Slicing(bits)


def test_damaged_bytes_are_refused_by_its_own_name():
    with pytest.raises(PayloadError, match=r"slicing feature of 5 B, expected 4 B for \[1, 1, 1, 1\]"):
        Slicing(bits=4).unpack(bytes(5), (1, 8, 1, 1))
    with pytest.raises(PayloadError, match="slicing feature holds nan"):
        Slicing(bits=4).unpack(np.float32("nan").tobytes(), (1, 8, 1, 1))


@pytest.mark.parametrize(
    "order", [np.zeros(8, np.int64), np.arange(7), np.arange(8).astype(np.int32), np.arange(8) + 1]
)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ShapeError):
        Slicing().check_tables(8, {"order": order})
    Slicing().check_tables(8, {"order": np.arange(8)[::-1].copy()})

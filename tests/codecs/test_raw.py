"""raw: 32-bit floats."""

import struct

import numpy as np
import pytest

from edgekit.codecs.features.raw import Raw
from edgekit.errors import PayloadError

FEATURE = np.array([1.5, -2, 0, 3e38], np.float32).reshape(1, 2, 2, 1)


def test_the_bytes_are_the_floats():
    assert Raw().pack(Raw().quantize(FEATURE, {})) == struct.pack("<4f", *FEATURE.reshape(-1))


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda f: f.astype(">f4"), lambda f: np.repeat(f, 2, axis=1)[:, ::2]]
)
def test_memory_order_does_not_matter(change):
    assert Raw().pack({"codes": change(FEATURE)}) == FEATURE.tobytes()


def test_it_comes_back_exactly():
    decoded = Raw().dequantize(Raw().unpack(FEATURE.tobytes(), FEATURE.shape), {})
    np.testing.assert_array_equal(decoded, FEATURE)
    assert decoded.dtype == np.float32 and decoded.flags.writeable


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 3])
def test_a_value_that_is_not_finite_is_refused_where_it_is(bad, place):
    values = FEATURE.reshape(-1).copy()
    values[place] = bad
    with pytest.raises(PayloadError, match=f"raw feature holds {bad}") as caught:
        Raw().unpack(values.tobytes(), FEATURE.shape)
    assert caught.value.offset == 4 * place


def test_another_length_is_refused():
    with pytest.raises(PayloadError, match=r"raw feature of 12 B, expected 16 B for \[1, 2, 2, 1\]") as caught:
        Raw().unpack(bytes(12), (1, 2, 2, 1))
    assert caught.value.offset == 12

"""quantised updates: fields of the payload, the rounding, the bytes, and what is refused."""

import struct

import numpy as np
import pytest

from edgekit.codecs.entropy import dense
from edgekit.codecs.updates.flat import shapes_of
from edgekit.codecs.updates.quantised import Quantised
from edgekit.errors import PayloadError, UsageError

RNG = np.random.default_rng(1)
#: "b" has an rms of 2.
UPDATE = {"a": np.zeros(5, np.float32), "b": np.array([[5, -2, 1, 0], [-1, 1, 0, 0]], dtype=np.float32)}
SHAPES = {"a": (5,), "b": (2, 4)}


def test_payload_field_by_field() -> None:
    payload = Quantised(step=0.5).pack(UPDATE, RNG)
    assert payload[0] == 0b01000000, "of the two arrays, which are not zeros"
    assert struct.unpack("<f", payload[1:5]) == (1,), "half the rms"
    assert struct.unpack("<BI", payload[5:10]) == (3, 1), "magnitudes below 2**3, and one byte of bits"
    assert payload[11] == 0b01010000, "signs of the five that are not 0"
    np.testing.assert_array_equal(Quantised(step=0.5).unpack(payload, SHAPES)["b"], UPDATE["b"])


def test_values_go_to_the_nearest_multiple_of_each_arrays_own_step() -> None:
    update = {str(scale): np.float32(scale) * RNG.normal(size=(40, 5)).astype(np.float32) for scale in (1e-20, 3, 1e9)}
    arrives = Quantised(step=0.3).unpack(Quantised(step=0.3).pack(update, RNG), shapes_of(update))
    for name, array in update.items():
        unit = 0.3 * np.sqrt(np.mean(np.square(array.astype(np.float64))))
        np.testing.assert_allclose(arrives[name] / unit, np.rint(array / unit), rtol=1e-5)


def test_zeros_take_one_bit_an_array() -> None:
    zeros = {str(i): np.zeros((3, 5), np.float32) for i in range(9)}
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(zeros, (3, 5))
    assert Quantised().pack(zeros, RNG) == bytes(2)
    with pytest.raises(PayloadError, match="expected 0") as caught:
        Quantised().unpack(bytes(3), shapes)
    assert caught.value.offset == 2
    more = {**zeros, "x": np.ones(2, np.float32)}
    less = {"0": zeros["0"], "x": more["x"]}
    assert len(Quantised().pack(more, RNG)) == len(Quantised().pack(less, RNG)) + 1


@pytest.mark.parametrize(("step", "bits", "off"), [(0.125, 5.0, 0.04), (0.25, 4.0, 0.08), (1, 2.1, 0.3)])
def test_bits_and_error_of_a_front_halfs_update(step: float, bits: float, off: float) -> None:
    """Convolutions and norms, heavier tailed than normal values."""
    shapes = {"0.weight": (32, 16, 3, 3), "1.weight": (32,), "1.bias": (32,), "3.weight": (64, 32, 3, 3)}
    update = {name: RNG.laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}
    codec = Quantised(step=step)
    payload = codec.pack(update, RNG)
    count = sum(array.size for array in update.values())
    assert 8 * len(payload) / count < bits
    assert 8 * len(payload) < codec.formula_bits(shapes), "which is of normal values"
    arrives = codec.unpack(payload, shapes)
    for name in ("0.weight", "3.weight"):
        assert np.linalg.norm(arrives[name] - update[name]) < off * np.linalg.norm(update[name])


@pytest.mark.parametrize("unit", ["00000000", "000080bf", "0000c07f", "0000817f", "0000807f"])
def test_a_step_that_is_none_is_refused(unit: str) -> None:
    """Of 0, -1, NaN, a NaN that signals, and infinity."""
    payload = Quantised().pack(UPDATE, RNG)
    with pytest.raises(PayloadError, match="step 0 is") as caught:
        Quantised().unpack(payload[:1] + bytes.fromhex(unit) + payload[5:], SHAPES)
    assert caught.value.offset == 1


def test_values_that_are_not_finite_are_refused() -> None:
    payload = Quantised().pack(UPDATE, RNG)
    with pytest.raises(PayloadError, match="beyond the largest float32"):
        Quantised().unpack(payload[:1] + struct.pack("<f", 3e38) + payload[5:], SHAPES)


def test_an_array_that_was_told_to_hold_something_does() -> None:
    head = b"\x80" + struct.pack("<f", 1)
    one = np.array([0, 1], dtype=np.int64)
    arrives = Quantised().unpack(head + dense.encode(one, np.array([2])), {"a": (2,)})
    np.testing.assert_array_equal(arrives["a"], one)
    with pytest.raises(PayloadError, match="zeros alone"):
        Quantised().unpack(head + dense.encode(0 * one, np.array([2])), {"a": (2,)})


def test_more_arrays_than_there_are_is_refused() -> None:
    payload = Quantised().pack(UPDATE, RNG)
    with pytest.raises(PayloadError, match="no head of 2 arrays"):
        Quantised().unpack(bytes([payload[0] | 1]) + payload[1:], SHAPES)


@pytest.mark.parametrize("step", [0, 1.5, -1, "x", float("nan")])
def test_steps_that_make_no_sense_are_refused(step: object) -> None:
    with pytest.raises(UsageError, match=r"step of 0\.01 to 1"):
        Quantised(step=step)  # type: ignore[arg-type]

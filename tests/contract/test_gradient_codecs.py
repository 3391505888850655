"""What every registered gradient codec does; a new one is tested by being registered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.registry import GRADIENTS, gradient_codec
from edgekit.errors import PayloadError, ShapeError

GOLDEN = Path(__file__).parent.parent / "golden"
#: Further configurations, beside each codec's default.
CONFIGS: list[tuple[str, dict[str, Any]]] = [("stochastic", {"bits": bits}) for bits in (2, 3, 8)]
CODECS = [gradient_codec(codec_id, {}) for codec_id in GRADIENTS] + [gradient_codec(*config) for config in CONFIGS]
SHAPE = (3, 2, 2, 3)
each_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)


def draw(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    scale = np.array([1e-3, 1.0, 50.0], dtype=np.float32).reshape(3, 1, 1, 1)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * scale


def masks() -> list[np.ndarray | None]:
    some = np.random.default_rng(3).random(SHAPE) > 0.5
    some[1] = False
    return [None, some, np.ones(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)]


@each_codec
def test_identity_configuration_and_repr(codec: GradientCodec) -> None:
    assert GRADIENTS[codec.codec_id].endswith(":" + type(codec).__name__)
    again = gradient_codec(codec.codec_id, json.loads(json.dumps(codec.config)))
    assert repr(again) == repr(codec) and again.config == codec.config


@each_codec
@pytest.mark.parametrize("mask", masks(), ids=["unmasked", "some", "all", "none"])
def test_round_trip_is_within_one_level_and_zero_where_masked(codec: GradientCodec, mask: np.ndarray | None) -> None:
    gradient = draw(0)
    payload = codec.pack(gradient, mask, np.random.default_rng(0))
    assert isinstance(payload, bytes)
    arrives = codec.unpack(payload, SHAPE, mask)
    sent = gradient if mask is None else np.where(mask, gradient, np.float32(0))
    assert arrives.dtype == np.float32 and arrives.shape == SHAPE and arrives.flags.writeable
    assert not arrives[sent == 0].any()
    level = np.abs(sent).max(axis=(1, 2, 3), keepdims=True) / getattr(codec, "levels", np.inf)
    assert (np.abs(arrives - sent) <= level * 1.0001).all()
    assert (arrives * sent >= 0).all(), "no sign is turned"


@each_codec
def test_a_mask_of_all_sends_the_same_as_none(codec: GradientCodec) -> None:
    everything = np.ones(SHAPE, dtype=bool)
    plain, masked = (codec.pack(draw(1), mask, np.random.default_rng(7)) for mask in (None, everything))
    assert plain == masked


@each_codec
def test_the_same_generator_gives_the_same_bytes(codec: GradientCodec) -> None:
    assert codec.pack(draw(1), None, np.random.default_rng(7)) == codec.pack(draw(1), None, np.random.default_rng(7))


@each_codec
def test_a_zero_gradient_arrives_as_zeros(codec: GradientCodec) -> None:
    for zero in (np.zeros(SHAPE, np.float32), -np.zeros(SHAPE, np.float32)):
        payload = codec.pack(zero, None, np.random.default_rng(0))
        assert not codec.unpack(payload, SHAPE, None).any()


@each_codec
def test_extreme_magnitudes_stay_finite(codec: GradientCodec) -> None:
    for magnitude in (np.finfo(np.float32).max, np.finfo(np.float32).tiny, np.float32(1e-45)):
        gradient = np.full(SHAPE, magnitude, dtype=np.float32)
        gradient[:, 0] *= -1
        arrives = codec.unpack(codec.pack(gradient, None, np.random.default_rng(0)), SHAPE, None)
        np.testing.assert_array_equal(arrives, gradient)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec.unbiased], ids=repr)
@pytest.mark.parametrize("masked", [False, True])
def test_the_expectation_is_the_gradient(codec: GradientCodec, masked: bool) -> None:
    draws = 20000
    rng = np.random.default_rng(11)
    one = rng.normal(size=(1, 4, 1, 3)).astype(np.float32)
    mask = rng.random(one.shape) > 0.3 if masked else None
    many = np.repeat(one, draws, axis=0)
    masks = None if mask is None else np.repeat(mask, draws, axis=0)
    arrives = codec.unpack(codec.pack(many, masks, rng), many.shape, masks).astype(np.float64)
    expected = one[0] if mask is None else np.where(mask, one, 0)[0]
    error = np.abs(arrives.mean(axis=0) - expected)
    deviation = arrives.std(axis=0) / np.sqrt(draws)
    # Four deviations, twelve elements: a correct codec fails one seed in 1300, and this seed is fixed.
    assert (error <= 4 * deviation + 1e-6).all()


@each_codec
@pytest.mark.parametrize("mask", masks(), ids=["unmasked", "some", "all", "none"])
def test_a_payload_of_another_length_is_a_payload_error(codec: GradientCodec, mask: np.ndarray | None) -> None:
    payload = codec.pack(draw(0), mask, np.random.default_rng(0))
    for wrong in (payload + b"\0", payload[:-1], payload + payload, b""):
        if len(wrong) != len(payload):
            with pytest.raises(PayloadError) as caught:
                codec.unpack(wrong, SHAPE, mask)
            assert caught.value.offset == min(len(wrong), len(payload))


@each_codec
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_gradient_or_a_payload_error(codec: GradientCodec, data: st.DataObject) -> None:
    mask = data.draw(st.sampled_from(masks()))
    length = len(codec.pack(np.zeros(SHAPE, np.float32), mask, np.random.default_rng(0)))
    payload = data.draw(st.binary(min_size=length, max_size=length) | st.binary(max_size=2 * length))
    try:
        arrives = codec.unpack(payload, SHAPE, mask)
    except PayloadError as error:
        assert 0 <= error.offset <= max(len(payload), length)
    else:
        assert arrives.shape == SHAPE and arrives.dtype == np.float32 and np.isfinite(arrives).all()
        assert mask is None or not arrives[~mask].any()


@each_codec
def test_arrays_of_another_kind_are_shape_errors(codec: GradientCodec) -> None:
    rng = np.random.default_rng(0)
    for gradient in (draw(0).astype(np.float64), draw(0)[0]):
        with pytest.raises(ShapeError):
            codec.pack(gradient, None, rng)
    for mask in (np.ones(SHAPE, np.uint8), np.ones(SHAPE[1:], bool)):
        with pytest.raises(ShapeError):
            codec.pack(draw(0), mask, rng)


@pytest.mark.parametrize("codec_id", GRADIENTS)
def test_golden_bytes(codec_id: str) -> None:
    """The files were written once: a codec that gives other bytes takes a new id."""
    cases = json.loads((GOLDEN / f"gradient_{codec_id}.json").read_text())
    assert cases
    for case in cases:
        codec, shape = gradient_codec(codec_id, case["config"]), tuple(case["shape"])
        gradient, decoded = (
            np.frombuffer(bytes.fromhex(case[key]), "<f4").reshape(shape) for key in ("gradient", "decoded")
        )
        mask = None
        if case["mask"] is not None:
            flags = np.frombuffer(bytes.fromhex(case["mask"]), np.uint8)
            mask = np.unpackbits(flags)[: gradient.size].reshape(shape).astype(bool)
        # All elements are exact levels, so nothing depends on the generator.
        assert codec.pack(gradient, mask, np.random.default_rng(1)).hex() == case["payload"]
        np.testing.assert_array_equal(codec.unpack(bytes.fromhex(case["payload"]), shape, mask), decoded)

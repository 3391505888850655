"""What every registered update codec does; a new one is tested by being registered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit import statefile
from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.codecs.registry import UPDATES, parse_update_codec, update_codec
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.errors import Diverged, PayloadError, ShapeError, UnknownName, UsageError

pytestmark = pytest.mark.usefixtures("coder")
GOLDEN = Path(__file__).parent.parent / "golden"
#: Further configurations, beside each codec's default.
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    *(("quantised", {"step": step}) for step in (0.01, 0.5, 1)),
    ("dgc", {"keep": 0.2, "momentum": 0.9, "clip": 1, "warmup": 0}), ("dgc", {"keep": 1}), ("stc", {"keep": 0.5}),
    *(("dhqc", {"keep": keep, "location": at}) for keep, at in ((1, "lower"), (0.3, "middle"), (0.3, "mean"))),
    ("fsfl", {"sparsity": 0.9, "feedback": True}), ("fsfl", {"step": 2.44e-4, "fine": 0.1, "delta": 0, "gamma": 0}),
]  # fmt: skip
CODECS = [update_codec(codec_id, {}) for codec_id in UPDATES] + [update_codec(*config) for config in CONFIGS]
SHAPES: dict[str, tuple[int, ...]] = {
    "stem.weight": (6, 3, 3, 3), "stem.bias": (6,), "norm.momentum": (), "alone": (1, 1), "zeros": (4, 2),
    "none": (0, 3),
}  # fmt: skip
RNG = np.random.default_rng(0)
#: Lossless for every value.
EXACT = {"fedavg"}
#: What arrives is right on average, and may be farther off than nothing.
UNBIASED = {"terngrad"}
#: Steps do not follow the update: what is below all of them is lost.
FIXED = {"fsfl"}
each_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)


def draw(seed: int) -> Arrays:
    """Weights of different magnitude, and such that did not move."""
    rng = np.random.default_rng(seed)
    update = {
        name: np.asarray(rng.laplace(size=shape) * scale, dtype=np.float32)
        for (name, shape), scale in zip(SHAPES.items(), [1e-3, 20, 0.1, 1e-6, 0, 1], strict=True)
    }
    return update


def packed(codec: UpdateCodec, update: Arrays, seed: int = 0) -> bytes:
    return codec.pack(update, np.random.default_rng(seed))


def norm(update: Arrays) -> float:
    return float(np.sqrt(sum(np.square(array.astype(np.float64)).sum() for array in update.values())))


@each_codec
def test_identity_configuration_and_repr(codec: UpdateCodec) -> None:
    cls = type(codec)
    assert UPDATES[codec.codec_id] == f"{cls.__module__}:{cls.__name__}"
    again = update_codec(codec.codec_id, json.loads(json.dumps(codec.config)))
    assert repr(again) == repr(codec) and again.config == codec.config
    text = codec.codec_id + ":" + ",".join(f"{key}={value}" for key, value in codec.config.items())
    assert repr(parse_update_codec(text)) == repr(codec)


@each_codec
def test_what_arrives_is_an_update(codec: UpdateCodec) -> None:
    update = draw(0)
    before = {name: array.copy() for name, array in update.items()}
    payload = packed(codec, update)
    assert isinstance(payload, bytes)
    arrives = codec.unpack(payload, SHAPES)
    assert {name: array.shape for name, array in arrives.items()} == SHAPES
    for name, array in arrives.items():
        assert array.dtype == np.float32 and array.flags.writeable and np.isfinite(array).all()
        assert isinstance(array, np.ndarray), "also without dimensions"
        np.testing.assert_array_equal(update[name], before[name])
        if codec.codec_id in EXACT:
            np.testing.assert_array_equal(array, update[name])
    off = norm({name: arrives[name] - update[name] for name in update})
    assert off < norm(update) or codec.codec_id in UNBIASED


@each_codec
def test_bytes_depend_on_the_generator_and_the_names_alone(codec: UpdateCodec) -> None:
    update = draw(1)
    backwards = dict(reversed(update.items()))
    assert packed(codec, update, 7) == packed(codec, update, 7) == packed(codec, backwards, 7)
    payload = packed(codec, update)
    for name, array in codec.unpack(payload, dict(reversed(SHAPES.items()))).items():
        np.testing.assert_array_equal(array, codec.unpack(payload, SHAPES)[name])


@each_codec
def test_zeros_arrive_as_zeros_and_nothing_as_nothing(codec: UpdateCodec) -> None:
    for zero in (0.0, -0.0):
        zeros = {name: np.full(shape, zero, dtype=np.float32) for name, shape in SHAPES.items()}
        assert not any(array.any() for array in codec.unpack(packed(codec, zeros), SHAPES).values())
    assert codec.unpack(packed(codec, {}), {}) == {}


@each_codec
@pytest.mark.parametrize("magnitude", [np.finfo(np.float32).max, np.finfo(np.float32).tiny, np.float32(1e-45)])
def test_extreme_magnitudes_stay_finite(codec: UpdateCodec, magnitude: np.float32) -> None:
    signs = np.where(np.arange(12) % 3, np.float32(1), np.float32(-1))
    update = {"a": signs * magnitude, "b": np.where(np.arange(12) == 5, magnitude, np.float32(0))}
    arrives = codec.unpack(packed(codec, update), {"a": (12,), "b": (12,)})
    for name, array in arrives.items():
        assert np.isfinite(array).all() and (array * np.sign(update[name]) >= 0).all()
    assert any(array.any() for array in arrives.values()) or (codec.codec_id in FIXED and magnitude < 1)


@each_codec
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(codec: UpdateCodec, value: float) -> None:
    update = draw(0)
    update["stem.weight"][1, 2, 0, 1] = value
    with pytest.raises(Diverged, match=r"'stem\.weight'"):
        packed(codec, update)


@each_codec
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_arrays_of_another_kind_are_shape_errors(codec: UpdateCodec, dtype: type) -> None:
    with pytest.raises(ShapeError, match=r"'stem\.bias'.*expected float32"):
        packed(codec, {**draw(0), "stem.bias": np.ones(6, dtype)})


@each_codec
def test_formula_bits_grow_with_the_weights(codec: UpdateCodec) -> None:
    few, many = (codec.formula_bits({"a": (size, 3), "b": ()}) for size in (10000, 20000))
    assert 0 < few < many <= 48 * 60002 and isinstance(few, float)


@each_codec
def test_a_payload_of_another_length_is_a_payload_error(codec: UpdateCodec) -> None:
    payload = packed(codec, draw(0))
    for wrong in (
        payload + b"\0",
        payload + b"\0\0",
        payload + payload,
        *(payload[:end] for end in range(len(payload))),
    ):
        with pytest.raises(PayloadError) as caught:
            codec.unpack(wrong, SHAPES)
        assert 0 <= caught.value.offset <= len(wrong)
    with pytest.raises(PayloadError):
        codec.unpack(b"\0", {})


def is_an_update_or_payload_error(codec: UpdateCodec, payload: bytes) -> None:
    try:
        arrives = codec.unpack(payload, SHAPES)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)
    else:
        assert {name: array.shape for name, array in arrives.items()} == SHAPES
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrives.values())


@each_codec
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_an_update_or_a_payload_error(codec: UpdateCodec, data: st.DataObject) -> None:
    length = len(packed(codec, draw(0)))
    is_an_update_or_payload_error(
        codec, data.draw(st.binary(min_size=length, max_size=length) | st.binary(max_size=99))
    )


@each_codec
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_changed_bytes_are_an_update_or_a_payload_error(codec: UpdateCodec, data: st.DataObject) -> None:
    payload = bytearray(packed(codec, draw(0)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    is_an_update_or_payload_error(codec, bytes(payload))


@each_codec
@given(
    arrays=st.dictionaries(
        st.text(max_size=3),
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
            elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_update_arrives(codec: UpdateCodec, arrays: Arrays) -> None:
    arrives = codec.unpack(packed(codec, arrays), {name: array.shape for name, array in arrays.items()})
    for name, array in arrays.items():
        assert arrives[name].shape == array.shape and np.isfinite(arrives[name]).all()
        if codec.codec_id in EXACT:
            np.testing.assert_array_equal(arrives[name], array)


@each_codec
@pytest.mark.parametrize("learns", [True, False])
def test_sent_and_residual_are_what_was_given(codec: UpdateCodec, learns: bool) -> None:
    """Of ends that keep what they left out; of the others what arrives is what `pack` gives."""
    sender = codec.sender(learns)
    if learns and codec.config.get("momentum"):
        pytest.skip("momentum adds to what is given")
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    given = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    sent = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    whole = dict.fromkeys(SHAPES, 0.0)
    for seed in range(12):
        update = draw(seed)
        payload, arrives = sender.send(update, rng)
        if not isinstance(sender, ErrorFeedback):
            assert payload == codec.pack(update, same) and sender.state == {}
        for name, array in codec.unpack(payload, SHAPES).items():
            np.testing.assert_array_equal(array, arrives[name])
            given[name] += update[name]
            sent[name] += arrives[name]
            if isinstance(sender, ErrorFeedback):
                # What arrives may be far larger than what is given, and the residual is as exact as the larger of both.
                whole[name] = max(whole[name], np.abs(given[name]).max(initial=0), np.abs(arrives[name]).max(initial=0))
                left = sender.state.get("left_out", sender.state)[name]
                np.testing.assert_allclose(sent[name] + left, given[name], rtol=0, atol=1e-5 * whole[name])


@each_codec
@pytest.mark.parametrize("learns", [True, False])
def test_a_sender_goes_on_from_its_state(codec: UpdateCodec, learns: bool) -> None:
    first, second = codec.sender(learns), codec.sender(learns)
    assert repr(first.codec) == repr(codec) and first.state == {}
    second.restore(first.state)
    for seed in range(4):
        state = statefile.dumps(first.state)
        second = codec.sender(learns)
        second.restore(statefile.loads(state))
        assert statefile.dumps(second.state) == state
        sent, again = (each.send(draw(seed), np.random.default_rng(seed)) for each in (first, second))
        assert sent[0] == again[0] and all(np.array_equal(array, again[1][name]) for name, array in sent[1].items())
        with pytest.raises(Diverged, match=r"'stem\.weight'"):
            first.send({**draw(0), "stem.weight": np.full(SHAPES["stem.weight"], np.inf, np.float32)}, RNG)
        assert statefile.dumps(first.state) == statefile.dumps(second.state)
    with pytest.raises((ShapeError, Diverged)):
        first.restore({"stem.weight": np.zeros(3)})


def values(texts: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> Arrays:
    return {name: np.frombuffer(bytes.fromhex(text), "<f4").reshape(shapes[name]) for name, text in texts.items()}


@pytest.mark.parametrize("codec_id", UPDATES)
def test_golden_bytes(codec_id: str) -> None:
    """The files were written once: a codec that gives other bytes takes a new id."""
    cases = json.loads((GOLDEN / f"update_{codec_id}.json").read_text())
    assert cases
    for case in cases:
        codec = update_codec(codec_id, case["config"])
        shapes = {name: tuple(shape) for name, shape in case["shapes"].items()}
        update, decoded = values(case["update"], shapes), values(case["decoded"], shapes)
        assert packed(codec, update).hex() == case["payload"]
        arrives = codec.unpack(bytes.fromhex(case["payload"]), shapes)
        assert arrives.keys() == decoded.keys()
        for name, array in arrives.items():
            np.testing.assert_array_equal(array, decoded[name])


def test_names_and_settings_that_are_none_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean quantised"):
        parse_update_codec("quantized")
    with pytest.raises(UnknownName, match="it takes step"):
        parse_update_codec("quantised:steps=1")
    with pytest.raises(UnknownName, match="it takes none"):
        parse_update_codec("fedavg:step=1")
    with pytest.raises(UsageError, match="lacks its value"):
        parse_update_codec("quantised:step")

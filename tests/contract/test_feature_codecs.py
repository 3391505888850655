"""What every registered feature codec does; a new one is tested by being registered."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.registry import FEATURES, feature_codec
from edgekit.errors import PayloadError, UnknownName, UsageError
from edgekit.tensors import TensorSpec, check_all

pytestmark = pytest.mark.usefixtures("coder")
GOLDEN = Path(__file__).parent.parent / "golden" / "features.json"
#: Further configurations, beside each codec's default.
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("uniform", {"bits": 2}),
    ("uniform", {"bits": 5}),
    ("uniform", {"bits": 8}),
    ("sgq", {"groups": 1, "bits": 1}),
    ("sgq", {"groups": 2, "bits": 3}),
    ("sgq", {"groups": 16, "bits": 4}),
    ("sgq", {"groups": 4, "bits": 8}),
    ("sgq", {"grouping": "contiguous"}),
    ("product", {"groups": 2, "bits": 3}),
    ("product", {"groups": 4, "bits": 8}),
    ("slicing", {"bits": 8}),
    ("topk", {"bits": 3}),
    ("topk", {"bits": 8}),
]
#: Their graph emits the whole feature, and what is sent is picked from it.
PICKING = {"topk"}
CODECS = [feature_codec(codec_id, {}) for codec_id in FEATURES] + [feature_codec(*config) for config in CONFIGS]
SHAPE = (3, 16, 3, 5)
each_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)


def feature(seed=0, shape=SHAPE):
    """A feature after a ReLU: channels of different strength, a part of each at zero, one channel dead."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(0.5, 4, shape[1], dtype=np.float32)[:, None, None]
    z = np.maximum(rng.normal(size=shape).astype(np.float32) * strength, 0)
    z[:, 5] = 0
    return z


@functools.cache
def calibrated(codec):
    return codec.calibrate(feature(seed=100), seed=0)


def arriving(codec, codes):
    """What should come out of the packed `codes`."""
    return {"codes": codec.dequantize(codes, {})} if codec.codec_id in PICKING else codes


def coded(codec, seed=0):
    """(tables, feature in coded order, its codes)"""
    tables = calibrated(codec)
    z = feature(seed)[:, codec.order(SHAPE[1], tables)]
    return tables, z, codec.quantize(z, tables)


@each_codec
def test_identity_configuration_and_repr(codec):
    cls = type(codec)
    assert FEATURES[codec.codec_id] == f"{cls.__module__}:{cls.__name__}"
    again = feature_codec(codec.codec_id, json.loads(json.dumps(codec.config)))
    assert again == codec and hash(again) == hash(codec) and again is not codec
    assert eval(repr(codec), {cls.__name__: cls}) == codec  # noqa: S307 - our own text
    assert [other == codec for other in CODECS].count(True) == 1
    assert codec != codec.codec_id


@each_codec
def test_codes_are_as_specified(codec):
    _, z, codes = coded(codec)
    check_all(codec.code_specs(TensorSpec("feature", "float32", SHAPE)), codes, repr(codec))
    check_all(codec.code_specs(TensorSpec("feature", "float32", (-1, *SHAPE[1:]))), codes, repr(codec))
    np.testing.assert_array_equal(z, coded(codec)[1])  # quantize leaves its input alone


@each_codec
@pytest.mark.parametrize("n", [1, 2, 3])
def test_codes_survive_packing_exactly(codec, n):
    tables = calibrated(codec)
    codes = codec.quantize(feature()[:n], tables)
    payload = codec.pack(codes)
    assert isinstance(payload, bytes) and payload == codec.pack(codes)
    again = codec.unpack(payload, (n, *SHAPE[1:]))
    assert again.keys() == codes.keys()
    for name, array in arriving(codec, codes).items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
    assert codec.pack(again) == payload


@each_codec
def test_what_is_decoded_is_a_feature_and_near(codec):
    tables, z, codes = coded(codec)
    decoded = codec.dequantize(codes, tables)
    TensorSpec("decoded", "float32", SHAPE).check(decoded, repr(codec))
    assert np.isfinite(decoded).all()
    assert ((decoded - z) ** 2).mean() < ((z.mean(axis=(0, 2, 3), keepdims=True) - z) ** 2).mean()


@each_codec
def test_both_sides_decode_alike(codec):
    tables, _, codes = coded(codec)
    arrived = codec.unpack(codec.pack(codes), SHAPE)
    assert codec.dequantize(arrived, tables).tobytes() == codec.dequantize(codes, tables).tobytes()
    assert codec.active(arrived, tables).tobytes() == codec.active(codes, tables).tobytes()


@each_codec
def test_what_is_not_active_decodes_to_about_zero(codec):
    tables, _, codes = coded(codec)
    active, decoded = codec.active(codes, tables), codec.dequantize(codes, tables)
    assert active.shape == SHAPE and active.dtype == np.bool_
    assert 0 < active.mean() < 1
    largest = feature(seed=100)[:, codec.order(SHAPE[1], tables)].max(axis=(0, 2, 3), keepdims=True)
    assert (np.abs(decoded) <= 0.1 * largest)[~active].all()
    assert (decoded != 0)[active].all()
    assert not active[:, codec.order(SHAPE[1], tables) == 5].any()  # the dead channel


@each_codec
def test_the_order_is_a_permutation(codec):
    order = codec.order(16, calibrated(codec))
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(16))


@each_codec
def test_tables_are_named_arrays_and_the_seed_decides_them(codec):
    first, again = (codec.calibrate(feature(seed=100), seed=3) for _ in range(2))
    assert first.keys() == again.keys()
    assert all(isinstance(a, np.ndarray) and np.array_equal(a, again[name]) for name, a in first.items())
    assert all(isinstance(a, np.ndarray) and a.dtype == np.float32 for a in codec.table_feeds(first).values())


@each_codec
def test_tables_that_did_not_move_need_no_update(codec):
    tables = calibrated(codec)
    assert codec.diff(tables, tables, 0.0) == b""


@each_codec
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_an_update_is_followed_or_refused(codec, tolerance):
    tables, other = (codec.calibrate(feature(seed=seed), seed=0) for seed in (100, 101))
    if tolerance and "order" in tables:
        other["order"] = tables["order"]
    payload = codec.diff(tables, other, tolerance)
    assert bool(payload) == ("codebook" in tables)
    if payload:
        codec.dequantize(coded(codec)[2], codec.patch(tables, payload))
    for damaged in (b"", payload + b"\0", payload[:-1] or b"x"):
        with pytest.raises(PayloadError):
            codec.patch(tables, damaged)


@each_codec
def test_it_takes_the_channels_it_is_tried_with(codec):
    codec.check(16)


@each_codec
@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_another_length_is_refused(codec, change):
    payload = codec.pack(coded(codec)[2])
    damaged = payload[:change] if change < 0 else payload + bytes(change)
    with pytest.raises(PayloadError) as caught:
        codec.unpack(damaged, SHAPE)
    assert caught.value.offset == min(len(damaged), len(payload))
    with pytest.raises(PayloadError):
        codec.unpack(b"", SHAPE)


@each_codec
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_bytes_are_codes_or_a_payload_error(codec, data):
    shape = (data.draw(st.integers(1, 2)), 16, 1, 2)
    right = len(codec.pack(codec.quantize(np.zeros(shape, np.float32), calibrated(codec))))
    sizes = st.just(right) | st.integers(0, 300)
    payload = data.draw(sizes.flatmap(lambda n: st.binary(min_size=n, max_size=n)))
    try:
        codes = codec.unpack(payload, shape)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)
        return
    check_all(codec.code_specs(TensorSpec("feature", "float32", shape)), codes, repr(codec))
    decoded = codec.dequantize(codes, calibrated(codec))
    assert decoded.shape == shape and np.isfinite(decoded).all()
    assert codec.active(codes, calibrated(codec)).shape == shape
    if len(payload) == right and data.draw(st.booleans()):
        with pytest.raises(PayloadError):
            codec.unpack(payload[:-1], shape)


def golden_case(codec):
    """Codes of a feature made of integers, with tables made of integers: no rounding anywhere."""
    shape = (2, 4, 2, 3)
    z = (np.arange(48).reshape(shape) * 7 % 16).astype(np.float32)
    tables = {}
    if codec.codec_id == "slicing":
        tables = {"order": np.arange(4)}
    if codec.codec_id in ("sgq", "product"):
        words = np.arange(codec.words)[:, None]
        tables = {"codebook": (words + np.zeros(4)).astype(np.float32), "order": np.arange(4)}
    codes = codec.quantize(z, tables)
    return {
        "config": codec.config,
        "shape": list(shape),
        "feature": z.astype(int).reshape(-1).tolist(),
        "tables": {name: array.tolist() for name, array in tables.items()},
        "codes": {name: array.tolist() for name, array in codes.items()},
        "payload": codec.pack(codes).hex(),
        "decoded": codec.dequantize(codes, tables).tolist(),
    }


def test_every_codec_has_golden_bytes():
    assert set(json.loads(GOLDEN.read_text())) == set(FEATURES)


@pytest.mark.parametrize("codec_id", FEATURES)
def test_golden_bytes(codec_id):
    """An id names a byte format for ever: these were written once, a changed format takes a new id."""
    for case in json.loads(GOLDEN.read_text())[codec_id]:
        codec = feature_codec(codec_id, case["config"])
        assert golden_case(codec) == case
        codes = codec.unpack(bytes.fromhex(case["payload"]), case["shape"])
        sent = arriving(codec, {name: np.array(values, np.float32) for name, values in case["codes"].items()})
        assert {name: array.tolist() for name, array in codes.items()} == {k: v.tolist() for k, v in sent.items()}


def test_an_unknown_codec_offers_near_names():
    with pytest.raises(UnknownName, match="unknown feature codec 'uniforn': did you mean uniform"):
        feature_codec("uniforn", {})


def test_a_wrong_configuration_is_refused():
    with pytest.raises(UsageError, match="unknown setting of feature codec 'sgq' 'group': did you mean groups"):
        feature_codec("sgq", {"group": 8})
    with pytest.raises(UsageError, match="does not take None"):
        feature_codec("raw", None)  # type: ignore[arg-type]

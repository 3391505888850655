"""Payloads in the place of weights: what comes out, what is sent, and that broken ones are typed errors."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.codecs.registry import UPDATES, parse_update_codec, update_codec
from edgekit.errors import Diverged, PayloadError, ShapeError, UnknownName, UsageError
from edgekit.federate import wire
from edgekit.federate.apart import by_name

FEDAVG, COARSE = parse_update_codec("fedavg"), parse_update_codec("quantised:step=1")


def weights(seed: int = 0) -> Arrays:
    draws = np.random.default_rng(seed)
    return {
        "conv.weight": draws.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "norm.running_var": np.full(4, 0.5, np.float32),
        "norm.num_batches_tracked": np.array(7 + seed, np.int64),
        "half": draws.normal(size=3).astype(np.float16),
    }


def test_weights_arrive_in_their_order_and_dtypes(rng: np.random.Generator) -> None:
    old, new = weights(), weights(1)
    sent = wire.pack(old, new, FEDAVG.sender(), rng)
    got = wire.unpack(old, sent.payload, FEDAVG).weights
    assert list(got) == list(old)
    for name, array in new.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-7)
        np.testing.assert_array_equal(got[name], sent.weights[name])
    assert old["norm.num_batches_tracked"] == 7, "the old weights stay as they were"


def test_the_fields_of_a_payload(rng: np.random.Generator) -> None:
    old: Arrays = {"b": np.zeros(2, np.float32), "a": np.array([5], np.int64)}
    new: Arrays = {"b": np.array([1, -2], np.float32), "a": np.array([7], np.int64)}
    payload = wire.pack(old, new, FEDAVG.sender(), rng).payload
    (length,) = struct.unpack_from("<I", payload)
    assert zlib.decompress(payload[4 : 4 + length]) == struct.pack("<q", 2)
    assert payload[4 + length :] == struct.pack("<2f", 1, -2)
    floats = {"b": old["b"]}
    assert wire.pack(floats, {"b": new["b"]}, FEDAVG.sender(), rng).payload[:4] == bytes(4)


def test_what_a_codec_leaves_out_goes_with_the_next(rng: np.random.Generator) -> None:
    """The receiver's weights stay beside the sender's, however coarse the codec."""
    sender, theirs = COARSE.sender(), weights()
    for _ in range(20):
        mine = {name: array + np.asarray(0.01 * rng.normal(size=array.shape)).astype(array.dtype)
                if array.dtype == np.float32 else array for name, array in theirs.items()}  # fmt: skip
        sent = wire.pack(theirs, mine, sender, rng)
        got = wire.unpack(theirs, sent.payload, COARSE).weights
        off = got["conv.weight"] - mine["conv.weight"]
        theirs = got
    assert np.abs(sender.state["conv.weight"]).max() < 0.05
    assert np.abs(off).max() < 0.1


@pytest.mark.parametrize("codec", sorted(UPDATES))
def test_variances_stay_positive(codec: str, rng: np.random.Generator) -> None:
    old = {"norm.running_var": np.array([1, 1, 1], np.float32), "w": rng.normal(size=(8, 8)).astype(np.float32)}
    new = {"norm.running_var": np.array([-5, 1, 2], np.float32), "w": old["w"]}
    sent = wire.pack(old, new, update_codec(codec, {}).sender(), rng)
    assert (sent.weights["norm.running_var"] > 0).all()


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), st.sampled_from(["<i8", "<u8", "|b1", "|u1"])
)
def test_integers_arrive_exactly(values: list[int], dtype: str) -> None:
    new = {"n": np.array(values, np.int64).astype(dtype)}
    old = {"n": np.array(values[::-1], np.int64).astype(dtype)}
    sent = wire.pack(old, new, FEDAVG.sender(), np.random.default_rng(0))
    np.testing.assert_array_equal(wire.unpack(old, sent.payload, FEDAVG).weights["n"], new["n"])


BOMB = zlib.compress(bytes(1 << 20))


@settings(deadline=None)
@given(st.binary(max_size=400))
@example(struct.pack("<I", len(BOMB)) + BOMB)
@example(struct.pack("<I", 10) + zlib.compress(bytes(8)))
@pytest.mark.parametrize("codec", ["fedavg", "quantised"])
def test_any_bytes_are_weights_or_a_typed_error(codec: str, payload: bytes) -> None:
    old = weights()
    try:
        got = wire.unpack(old, payload, parse_update_codec(codec)).weights
    except PayloadError:
        return
    assert {name: array.shape for name, array in got.items()} == {name: array.shape for name, array in old.items()}
    assert all(np.isfinite(array).all() for array in got.values())


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_payload_is_weights_or_a_typed_error(at: int, byte: int) -> None:
    sent = wire.pack(weights(), weights(1), COARSE.sender(), np.random.default_rng(0)).payload
    damaged = bytearray(sent)
    damaged[at % len(sent)] = byte
    try:
        got = wire.unpack(weights(), bytes(damaged), COARSE).weights
    except PayloadError:
        return
    assert all(np.isfinite(array).all() for array in got.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"half": None}, "lacks half"),
        ({"more": np.zeros(1, np.float32)}, "got weights more"),
        ({"half": np.zeros(4, np.float16)}, r"\[4\], expected float16 \[3\]"),
        ({"half": np.zeros(3, np.int64)}, "is int64"),
        ({"half": np.zeros(3, np.complex64)}, "is complex64"),
    ],
)
def test_other_weights_are_refused(change: Arrays, told: str, rng: np.random.Generator) -> None:
    new = {name: array for name, array in {**weights(), **change}.items() if array is not None}
    with pytest.raises(ShapeError, match=told):
        wire.pack(weights(), new, FEDAVG.sender(), rng)


def test_weights_that_are_not_finite_are_not_sent(rng: np.random.Generator) -> None:
    with pytest.raises(Diverged, match=r"conv\.weight"):
        wire.pack(weights(), {**weights(), "conv.weight": np.full((4, 3, 3, 3), np.nan, np.float32)},
                  COARSE.sender(), rng)  # fmt: skip


def test_a_sum_beyond_the_largest_float_is_refused() -> None:
    old = {"w": np.full(1, 3e38, np.float32)}
    with pytest.raises(PayloadError, match="not finite"):
        wire.unpack(old, bytes(4) + np.array([3e38], np.float32).tobytes(), FEDAVG)


def test_averages_come_back_in_the_dtypes_that_were() -> None:
    averaged = {name: array.astype(np.float64) * 1.05 for name, array in weights().items()}
    came = wire.as_came(weights(), averaged)
    assert {name: array.dtype for name, array in came.items()} == {n: a.dtype for n, a in weights().items()}
    assert came["norm.num_batches_tracked"] == 7
    with pytest.raises(ShapeError, match="gave nothing for weight 'half'"):
        wire.as_came(weights(), {name: array for name, array in averaged.items() if name != "half"})


@pytest.mark.parametrize("codec", [COARSE, by_name("quantised:step=1", "fedavg")])
def test_a_codec_is_spelled_and_read(codec: UpdateCodec) -> None:
    read = wire.codec_of(wire.spelled(codec))
    assert type(read) is type(codec) and wire.spelled(read) == wire.spelled(codec)


@pytest.mark.parametrize(
    ("text", "error"),
    [("", PayloadError), ("[", PayloadError), ("[1]", PayloadError), ("{}", PayloadError), ("[" * 9999, PayloadError),
     ('[["fedavg", {}], ["fedavg", {}]]', PayloadError), ('[["quantized", {}]]', UnknownName),
     ('[["quantised", 3]]', UsageError), ('[["quantised", {"step": "x"}]]', UsageError)],
)  # fmt: skip
def test_no_codec_is_a_typed_error(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        wire.codec_of(text)


def test_draws_are_of_seed_number_and_client() -> None:
    draws = [wire.generator(*key).random() for key in ((0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2), (0, 1))]
    assert len(set(draws)) == len(draws)
    assert wire.generator(0, 1, 2).random() == draws[0]

"""Statistics beside weights: each arrives by its own codec, both senders go on, and any other bytes are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import statefile
from edgekit.apart import EVEN, Apart, apart
from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.codecs.registry import UPDATES, parse_update_codec, update_codec
from edgekit.codecs.updates.flat import shapes_of
from edgekit.errors import Diverged, PayloadError, ShapeError
from edgekit.parts import join

STATISTICS = ("norm.running_mean", "norm.running_var")
STC = apart(parse_update_codec("stc:keep=0.05"), STATISTICS)
each_codec = pytest.mark.parametrize(
    "codec", [update_codec(codec_id, {}) for codec_id in UPDATES if codec_id not in EVEN], ids=repr
)


def draw(seed: int, statistics: bool = True) -> Arrays:
    """Statistics move a hundred times as far as weights."""
    rng = np.random.default_rng(seed)
    update = {"conv.weight": rng.normal(size=(8, 4, 3, 3)), "norm.weight": rng.normal(size=8)}
    if statistics:
        update.update({name: 100 * rng.normal(size=8) for name in STATISTICS})
    return {name: np.asarray(array, np.float32) for name, array in update.items()}


SHAPES = shapes_of(draw(0))


def test_codecs_that_say_every_array_alike_take_statistics_too() -> None:
    for codec_id in UPDATES:
        codec = update_codec(codec_id, {})
        assert (apart(codec, STATISTICS) is codec) == (codec_id in EVEN)


@each_codec
def test_statistics_arrive_nearly_as_they_are_and_change_no_weight(codec: UpdateCodec) -> None:
    update, both = draw(0), apart(codec, STATISTICS)
    arrives = both.unpack(both.pack(update, np.random.default_rng(0)), SHAPES)
    assert shapes_of(arrives) == SHAPES
    alone = {name: array for name, array in update.items() if name not in STATISTICS}
    expected = codec.unpack(codec.pack(alone, np.random.default_rng(0)), shapes_of(alone))
    for name, array in arrives.items():
        if name in STATISTICS:
            off = np.abs(array - update[name]).max()
            assert off < 0.1 * np.sqrt(np.square(update[name]).mean())
        else:
            np.testing.assert_array_equal(array, expected[name])


def test_among_weights_they_would_spoil_them() -> None:
    alone, update = parse_update_codec("stc:keep=0.05"), draw(0)
    spoilt = alone.unpack(alone.pack(update, np.random.default_rng(0)), SHAPES)["conv.weight"]
    sound = STC.unpack(STC.pack(update, np.random.default_rng(0)), SHAPES)["conv.weight"]
    # One magnitude for all: that of the statistics.
    assert np.abs(sound).max() < 2 * np.abs(update["conv.weight"]).max()
    assert np.abs(spoilt).max(initial=0) > 10 * np.abs(sound).max() or not spoilt.any()


@each_codec
def test_without_statistics_it_is_the_codec_alone(codec: UpdateCodec) -> None:
    update, both = draw(0, statistics=False), apart(codec, STATISTICS)
    payload = both.pack(update, np.random.default_rng(0))
    assert payload == join([codec.pack(update, np.random.default_rng(0))])
    assert both.unpack(payload, shapes_of(update)).keys() == update.keys()
    assert both.formula_bits(shapes_of(update)) == codec.formula_bits(shapes_of(update))
    assert both.formula_bits(SHAPES) > codec.formula_bits(shapes_of(update))


@each_codec
def test_a_sender_that_was_saved_goes_on_with_the_same_bytes(codec: UpdateCodec) -> None:
    both = apart(codec, STATISTICS)
    first, again, rng = both.sender(), both.sender(), np.random.default_rng(0)
    for turn in range(3):
        payload, arrives = first.send(draw(turn), rng)
        for name, array in both.unpack(payload, SHAPES).items():
            np.testing.assert_array_equal(array, arrives[name])
    again.restore(statefile.loads(statefile.dumps(first.state)))
    for turn in range(3, 5):
        sent = [end.send(draw(turn), np.random.default_rng(turn))[0] for end in (first, again)]
        assert sent[0] == sent[1]


@each_codec
@pytest.mark.parametrize("part", [0, 1])
def test_after_an_error_in_either_part_both_are_as_they_were(codec: UpdateCodec, part: int) -> None:
    sender, rng = apart(codec, STATISTICS).sender(), np.random.default_rng(0)
    sender.send(draw(0), rng)
    before = statefile.dumps(sender.state)
    name = ("conv.weight", "norm.running_var")[part]
    with pytest.raises(Diverged, match=name):
        sender.send({**draw(1), name: np.full(SHAPES[name], np.nan, np.float32)}, rng)
    with pytest.raises(ShapeError, match=name):
        sender.send({**draw(1), name: np.zeros(SHAPES[name], np.float64)}, rng)
    with pytest.raises(ShapeError, match=r"norm\.running_var"):
        sender.send({**draw(1), "norm.running_var": np.zeros(9, np.float32)}, rng)
    assert statefile.dumps(sender.state) == before


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_an_update_or_a_payload_error(data: st.DataObject) -> None:
    payload = bytearray(STC.pack(draw(0), np.random.default_rng(0)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    some = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for given_bytes in (bytes(payload), some, data.draw(st.binary(max_size=40))):
        try:
            assert shapes_of(STC.unpack(given_bytes, SHAPES)) == SHAPES
        except PayloadError as error:
            assert 0 <= error.offset <= len(given_bytes)


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05\x00\x00\x00abcd", b"\xff\xff\xff\xff"])
def test_a_length_that_is_none(payload: bytes) -> None:
    assert isinstance(STC, Apart)
    with pytest.raises(PayloadError):
        STC.unpack(payload, SHAPES)

"""What rounds carry: the chosen layers, the rest, and what senders keep of both for the next round."""

import numpy as np
import pytest

from edgekit import statefile
from edgekit.carried import NO_REST, Carried, Sender
from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.codecs.registry import UPDATES, update_codec
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.codecs.updates.flat import shapes_of
from edgekit.codecs.updates.quantised import Quantised
from edgekit.errors import Diverged, PayloadError, ShapeError

NAMES = ["stem.weight", "stem.bias", "body.1.weight", "body.10.weight", "body.1.norm.weight"]
each_codec = pytest.mark.parametrize("codec", [update_codec(codec_id, {}) for codec_id in UPDATES], ids=repr)


def draw(seed: int, names: list[str] = NAMES) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(4, 9)).astype(np.float32) for name in names}


SHAPES = shapes_of(draw(0))


def test_a_layer_is_a_module_with_all_in_it_or_one_weight() -> None:
    assert Carried(NAMES).chosen == NAMES and not Carried(NAMES).rest
    chosen = Carried(NAMES, ["body.1", "stem.bias"])
    assert chosen.chosen == ["stem.bias", "body.1.weight", "body.1.norm.weight"]
    assert chosen.rest == ["stem.weight", "body.10.weight"]
    assert Carried(NAMES, ["none"]).chosen == [] and Carried(NAMES, ["none"]).rest == NAMES


def test_the_rest_goes_with_some_rounds_only() -> None:
    carried = Carried(NAMES, ["body"])
    sender, rng, update = Sender(carried, FedAvg()), np.random.default_rng(0), draw(1)
    few = {name: update[name] for name in carried.chosen}
    payload, rest, arrives = sender.send(few, rng)
    assert rest == NO_REST and len(payload) == 3 * 4 * 36 and set(arrives) == set(carried.chosen)
    payload, rest, arrives = sender.send(update, rng)
    assert rest == 2 * 4 * 36 and len(payload) == 5 * 4 * 36
    found = carried.unpack(FedAvg(), payload, rest, SHAPES)
    assert found.keys() == arrives.keys() == set(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(found[name], update[name])


@each_codec
def test_both_ends_have_the_same_and_what_is_left_out_comes_later(codec: UpdateCodec) -> None:
    carried = Carried(NAMES, ["body"])
    sender, rng = Sender(carried, codec), np.random.default_rng(0)
    for turn in range(6):
        update = draw(turn, NAMES if turn % 3 == 2 else carried.chosen)
        payload, rest, arrives = sender.send(update, rng)
        found = carried.unpack(codec, payload, rest, SHAPES)
        assert found.keys() == update.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, arrives[name])


@each_codec
@pytest.mark.parametrize("layers", [[], ["body"]])
def test_a_sender_that_was_saved_goes_on_with_the_same_bytes(codec: UpdateCodec, layers: list[str]) -> None:
    carried = Carried(NAMES, layers)
    first, rng = Sender(carried, codec), np.random.default_rng(0)
    for turn in range(3):
        first.send(draw(turn, NAMES if turn % 2 else carried.chosen), rng)
    saved = statefile.dumps({"sender": first.state, "rng": rng.bit_generator.state})
    found, again, drawn = statefile.loads(saved), Sender(carried, codec), np.random.default_rng(7)
    again.restore(found["sender"])
    drawn.bit_generator.state = found["rng"]
    for turn in range(3, 6):
        update = draw(turn, NAMES if turn % 2 else carried.chosen)
        payload, rest, arrives = first.send(update, rng)
        other = again.send(update, drawn)
        assert other[:2] == (payload, rest)
        for name, array in arrives.items():
            np.testing.assert_array_equal(other[2][name], array)
    assert statefile.dumps(again.state) == statefile.dumps(first.state)


@each_codec
@pytest.mark.parametrize("name", ["body.1.weight", "stem.bias"])
def test_after_an_error_in_either_part_both_are_as_they_were(codec: UpdateCodec, name: str) -> None:
    sender, rng = Sender(Carried(NAMES, ["body"]), codec), np.random.default_rng(0)
    sender.send(draw(0), rng)
    before = statefile.dumps(sender.state)
    with pytest.raises(Diverged, match=name):
        sender.send({**draw(1), name: np.full((4, 9), np.inf, np.float32)}, rng)
    with pytest.raises(ShapeError, match=name):
        sender.send({**draw(1), name: np.zeros((4, 9))}, rng)
    assert statefile.dumps(sender.state) == before


@pytest.mark.parametrize(
    ("layers", "rest"),
    [([], 0), ([], 3), (["body"], -2), (["body"], 721), (["body"], 0), (["body"], 4), (["body"], 720)],
)
def test_a_rest_that_is_none(layers: list[str], rest: int) -> None:
    payload = FedAvg().pack(draw(0), np.random.default_rng(0))
    with pytest.raises(PayloadError):
        Carried(NAMES, layers).unpack(FedAvg(), payload, rest, SHAPES)


def test_a_message_of_the_chosen_alone_must_have_them_all() -> None:
    carried = Carried(NAMES, ["body"])
    payload = Quantised().pack(draw(0, carried.chosen), np.random.default_rng(0))
    with pytest.raises(PayloadError):
        carried.unpack(Quantised(), payload[:-1], NO_REST, SHAPES)

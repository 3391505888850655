"""Weights, statistics and scales in one payload: each arrives by its codec, and any other bytes are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import statefile
from edgekit.codecs.registry import parse_update_codec
from edgekit.errors import Diverged, PayloadError, ShapeError
from edgekit.federate.apart import KINDS, SCALE, SCALES_CODEC, STATISTICS_CODEC, by_kind, by_name
from edgekit.parts import join, split

SHAPES = {"a.weight": (4, 3), "a.weight" + SCALE: (4,), "b.bias": (2,), "b.running_mean": (2,), "b.running_var": (2,)}
CODEC = by_kind(*(parse_update_codec(f"quantised:step={step}") for step in (1, 0.1, 0.01)))
OFF = {"weights": 1.0, "statistics": 0.15, "scales": 0.015}


def update() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_each_kind_arrives_by_its_own_codec(rng: np.random.Generator) -> None:
    given = update()
    arrives = CODEC.unpack(CODEC.pack(given, rng), SHAPES)
    assert {name: array.shape for name, array in arrives.items()} == SHAPES
    for kind, own in CODEC.apart(given).items():
        off = max(np.abs(arrives[name] - array).max() for name, array in own.items())
        assert OFF[kind] / 20 < off < OFF[kind]


def test_every_array_is_of_one_kind_and_kinds_without_any_take_no_part(rng: np.random.Generator) -> None:
    assert {kind: set(own) for kind, own in CODEC.apart(SHAPES).items()} == {
        "weights": {"a.weight", "b.bias"}, "statistics": {"b.running_mean", "b.running_var"},
        "scales": {"a.weight" + SCALE},
    }  # fmt: skip
    weights = CODEC.apart(update())["weights"]
    payload = CODEC.pack(weights, rng)
    assert split(payload) == [CODEC.codecs["weights"].pack(weights, rng)]


@pytest.mark.parametrize(
    ("weights", "statistics"),
    [("fedavg", "fedavg"), ("quantised:step=1", "quantised:step=1"), ("stc", STATISTICS_CODEC),
     ("fsfl", STATISTICS_CODEC)],
)  # fmt: skip
def test_statistics_go_as_weights_do_where_that_suits_them(weights: str, statistics: str) -> None:
    codec = by_name(weights)
    spelled = [repr(parse_update_codec(text)) for text in (weights, statistics, SCALES_CODEC)]
    assert [repr(codec.codecs[kind]) for kind in KINDS] == spelled
    assert by_name(weights, "quantised:step=0.5").codecs["statistics"].config == {"step": 0.5}


def test_by_fedavg_nothing_but_scales_is_off(rng: np.random.Generator) -> None:
    codec, given = by_name("fedavg"), update()
    for name, array in codec.unpack(codec.pack(given, rng), SHAPES).items():
        assert np.array_equal(array, given[name]) == (not name.endswith(SCALE))


def test_kinds_may_be_sent_one_after_another() -> None:
    whole, parts, given = CODEC.sender(), CODEC.sender(), update()
    payload, arrives = whole.send(given, np.random.default_rng(0))
    sent = [parts.send(own, np.random.default_rng(0)) for own in CODEC.apart(given).values()]
    assert payload == b"".join(part for part, _ in sent)
    decoded = CODEC.unpack(payload, SHAPES)
    for _, own in sent:
        for name, array in own.items():
            np.testing.assert_array_equal(array, arrives[name])
            np.testing.assert_array_equal(array, decoded[name])


def test_a_sender_goes_on_from_its_state() -> None:
    one, two, given = CODEC.sender(), CODEC.sender(), update()
    first, _ = one.send(given, np.random.default_rng(0))
    two.restore(one.state)
    second, _ = one.send(given, np.random.default_rng(0))
    assert two.send(given, np.random.default_rng(0))[0] == second != first


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_after_an_error_in_any_kind_all_are_as_they_were(name: str) -> None:
    sender, rng = CODEC.sender(), np.random.default_rng(0)
    sender.send(update(), rng)
    before = statefile.dumps(sender.state)
    with pytest.raises(Diverged, match=name):
        sender.send({**update(), name: np.full(SHAPES[name], np.nan, np.float32)}, rng)
    with pytest.raises(ShapeError, match=name):
        sender.send({**update(), name: np.zeros(SHAPES[name])}, rng)
    assert statefile.dumps(sender.state) == before


def test_scales_that_were_discarded_stay_where_they_are() -> None:
    """What a codec lost of scales does not come later."""
    sender, scales = CODEC.sender(), CODEC.apart(update())["scales"]
    sender.send(scales, np.random.default_rng(0))
    payload, arrives = sender.send({name: np.zeros_like(s) for name, s in scales.items()}, np.random.default_rng(0))
    assert not any(array.any() for array in arrives.values()) and len(payload) == 4 + 1


def test_formula_bits_are_those_of_all_kinds(rng: np.random.Generator) -> None:
    coded = by_kind(*(parse_update_codec(codec) for codec in ("fsfl:step=0.5", "quantised", "fsfl")))
    sent = coded.unpack(coded.pack(update(), rng), SHAPES)
    of_sent = sum(coded.codecs[kind].formula_bits_of(own) for kind, own in coded.apart(sent).items())
    assert coded.formula_bits_of(sent) == of_sent != coded.formula_bits(SHAPES)
    expected = sum(CODEC.codecs[kind].formula_bits(own) for kind, own in CODEC.apart(SHAPES).items())
    assert CODEC.formula_bits(SHAPES) == expected


def test_another_number_of_parts_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(PayloadError, match="2 parts, expected 3"):
        CODEC.unpack(join(split(CODEC.pack(update(), rng))[:2]), SHAPES)


@given(st.one_of(st.binary(max_size=80), st.lists(st.binary(max_size=30), min_size=3, max_size=3).map(join)))
def test_any_bytes_decode_or_are_refused(payload: bytes) -> None:
    try:
        arrives = CODEC.unpack(payload, SHAPES)
    except PayloadError:
        return
    assert {name: array.shape for name, array in arrives.items()} == SHAPES
    assert all(np.isfinite(array).all() for array in arrives.values())

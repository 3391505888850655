"""Messages: every kind has a class, what is packed comes back, bytes stay as they are, and nonsense names its field."""

import contextlib
import re
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PayloadError
from edgekit.line import frame
from edgekit.line.frame import KINDS, Message
from edgekit.line.messages import (
    KIND_OF,
    LAYOUTS,
    MOST_MISSING,
    MOST_STEPS,
    Ack,
    AnyMessage,
    Bye,
    Codebook,
    Error,
    Evaluate,
    Feature,
    Gradient,
    Hello,
    Ping,
    Pong,
    Result,
    Welcome,
    check_count,
    decode,
    encode,
    pack,
    parse,
)  # fmt: skip

SGD = ("sgd", 0.05, 0.9, 5e-4, "cosine")
#: A message of every kind, and the header that it has in its frame.
EXAMPLES: list[tuple[AnyMessage, dict[str, Any]]] = [
    (Hello("b" * 4, "board", 9), {"bundle": "bbbb", "device": "board", "steps": 9}),
    (
        Welcome(1, "dct", {"zone": 2}, False, *SGD),
        {
            "gradient": {"id": "dct", "config": {"zone": 2}},
            "masked": False,
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": "cosine",
        },
    ),
    (Feature(1, 3, 2, 1, b"l", b"codes"), {"v": 2, "n": 1}),
    (Feature(1, 3, 2, 1, b"l", b"codes", 0.25), {"v": 2, "d": 0.25, "n": 1}),
    (Gradient(1, 3, 0.5, 7, 0.25, 0.125, b"g"), {"loss": 0.5, "right": 7, "dev": 0.25, "s": 0.125}),
    (Codebook(1, 4, b"moved"), {}),
    (Evaluate(1, 0, 2, 1, b"l", b"codes"), {"v": 2, "n": 1}),
    (Result(1, 0, 7, 0.5, 8, 0.125), {"right": 7, "loss": 0.5, "n": 8, "s": 0.125}),
    (Ack(1, 4), {}),
    (Bye(1), {}),
    (Error(1, 3, 10, "no"), {"code": 10, "message": "no"}),
    (Ping(2), {}),
    (Pong(2, 1.5, "b", "0.1", 3), {"time": 1.5, "bundle": "b", "version": "0.1", "devices": 3}),
]
each = pytest.mark.parametrize(("message", "header"), EXAMPLES, ids=lambda value: type(value).__name__)


def test_every_kind_has_its_class_and_an_example() -> None:
    assert list(LAYOUTS) == list(KINDS)
    assert set(KIND_OF) == {type(message) for message, _ in EXAMPLES}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_every_field_has_its_place(layout: Any) -> None:
    placed = [*layout.header, *layout.parts, *({layout.step} & set(layout.message._fields))]
    assert sorted(placed) == sorted(set(layout.message._fields) - {"session"})
    types = get_type_hints(layout.message)
    for name, (_, kind) in layout.header.items():
        assert types[name] in (kind, kind | None) or kind is dict, name


@each
def test_what_is_packed_comes_back(message: AnyMessage, header: dict[str, Any]) -> None:
    packed = pack(message)
    assert packed.header == header and packed.kind == KIND_OF[type(message)]
    assert parse(packed) == message == decode(encode(message))


def test_what_has_its_default_is_left_out_and_comes_back() -> None:
    asked = Welcome(1, "raw", {}, True, *SGD, noise_filling=True)
    assert pack(asked).header["noise_filling"] is True and parse(pack(asked)) == asked
    assert "noise_filling" not in pack(asked._replace(noise_filling=False)).header


def test_the_bytes_of_a_feature() -> None:
    expected = (
        "454b57" "01" "03" "02"  # magic, version, kind feature, two parts
        "0d00" "07000000" "02010000"  # 13 bytes of header, session 7, step 258
        "1a000000" "cbe16d5c"  # 26 bytes follow, CRC-32
        "7b2276223a312c226e223a327d"  # {"v":1,"n":2}
        "02000000" "03000000"  # lengths of the parts
        "0301" "cafeba"
    )  # fmt: skip
    assert encode(Feature(7, 258, 1, 2, b"\x03\x01", b"\xca\xfe\xba")).hex() == expected


@each
def test_a_field_of_another_type_is_named(message: AnyMessage, header: dict[str, Any]) -> None:
    good, layout = pack(message), LAYOUTS[KIND_OF[type(message)]]
    for name, (key, kind) in layout.header.items():
        outer, _, inner = key.rpartition(".")
        wrongs: list[Any] = [None, [], 1 if kind is bool else True, *([10**400, float("inf")] if kind is float else [])]
        for wrong in wrongs:
            holder = {**(good.header.get(outer, {}) if outer else good.header), inner: wrong}
            changed = {**good.header, outer: holder} if outer else holder
            with pytest.raises(PayloadError, match=rf"{good.kind} message: '{name}'.* is .*, expected {kind.__name__}"):
                parse(good._replace(header=changed))
    for outer in {key.split(".")[0] for _, (key, _) in layout.header.items()} - {"d", "noise_filling"}:
        lacking = {key: value for key, value in good.header.items() if key != outer}
        with pytest.raises(PayloadError, match=rf"'\w+'.*{outer}.* is None, expected|'{outer}' is None, expected"):
            parse(good._replace(header=lacking))
    with pytest.raises(PayloadError, match=f"{good.kind} message has {len(good.parts) + 1} parts, expected"):
        parse(good._replace(parts=(*good.parts, b"")))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Hello("b", "d", MOST_STEPS + 1), "hello message: 'steps' is 4294967296, expected 0 to 4294967295"),
        (Hello("b", "d", -1), "'steps' is -1"),
        (Hello("b", "d" * 201, 1), "a device name of 201 characters, expected at most 200"),
        (Feature(1, 0, 0, 1, b"", b"", MOST_MISSING + 0.01), "'missing' is 0.91, expected 0 to 0.9"),
        (Feature(1, 0, 0, 1, b"", b"", -0.5), "'missing' is -0.5"),
        (Pong(0, 0.0, "b\n", "1", 0), "cannot be shown"),
        (Gradient(1, 0, float("nan"), 0, 0.0, 0.0, b""), "'loss' is nan, expected float"),
    ],
)
def test_what_makes_no_sense_is_refused(message: AnyMessage, reason: str) -> None:
    with pytest.raises(PayloadError, match=re.escape(reason)):
        parse(pack(message))


def test_whole_numbers_pass_for_floats() -> None:
    assert parse(Message("gradient", 1, 0, {"loss": 1, "right": 0, "dev": 0, "s": 0}, (b"",))) == Gradient(
        1, 0, 1.0, 0, 0.0, 0.0, b""
    )


@pytest.mark.parametrize("count", [-1, 33, 10**400])
def test_counts_have_bounds(count: int) -> None:
    assert check_count(32, 32, "it") == 32 and check_count(0, 32, "it") == 0
    with pytest.raises(PayloadError, match=r"it is .*, expected 0 to 32"):
        check_count(count, 32, "it")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=5,
)
keys = sorted({key.split(".")[0] for layout in LAYOUTS.values() for key, _ in layout.header.values()})


@given(
    kind=st.sampled_from(sorted(KINDS)),
    header=st.dictionaries(st.sampled_from(keys), json_values, max_size=6),
    parts=st.lists(st.binary(max_size=4), max_size=3).map(tuple),
)
def test_any_content_is_a_message_or_a_payload_error(
    kind: str, header: dict[str, Any], parts: tuple[bytes, ...]
) -> None:
    with contextlib.suppress(PayloadError):
        assert KIND_OF[type(parse(Message(kind, 1, 2, header, parts)))] == kind


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_payload_error(data: bytes) -> None:
    with contextlib.suppress(PayloadError):
        decode(data)
    with contextlib.suppress(PayloadError):
        frame.decode(data)

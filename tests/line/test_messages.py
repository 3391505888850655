"""Messages: every kind has a class, what is packed comes back, bytes stay as they are, and nonsense names its field."""

import contextlib
import re
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PayloadError
from edgekit.line import frame, messages
from edgekit.line.frame import KINDS, Message
from edgekit.line.messages import (
    KIND_OF,
    LAYOUTS,
    MOST_MISSING,
    MOST_PLANNED,
    NO_LIFE,
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
    Resume,
    Resumed,
    Save,
    Saved,
    Tally,
    Update,
    Weights,
    Welcome,
    check_count,
    decode,
    encode,
    pack,
    parse,
)  # fmt: skip

SGD = ("sgd", 0.9, 5e-4, b"front", b"tables")
#: All that a hello must say, and the fields of rounds in a welcome.
HELLO = Hello("b" * 4, "board", 90, 9, 2)
ROUNDS: dict[str, Any] = {"epoch": 1, "round": 5, "rounds": 4, "round_epochs": 1, "round_seconds": 2.5}
#: A message of every kind, and the header that it has in its frame.
EXAMPLES: list[tuple[AnyMessage, dict[str, Any]]] = [
    (HELLO, {"bundle": "bbbb", "device": "board", "images": 90, "steps": 9, "epochs": 2}),
    (
        HELLO._replace(classes=["cat", "dog"]),
        {"bundle": "bbbb", "device": "board", "images": 90, "steps": 9, "epochs": 2, "classes": ["cat", "dog"]},
    ),
    (
        Welcome(1, 45, "dct", {"zone": 2}, False, *SGD),
        {
            "steps": 45,
            "gradient": {"id": "dct", "config": {"zone": 2}},
            "masked": False,
            "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
        },
    ),
    (
        Welcome(1, 45, "dct", {}, True, *SGD, update_codec="q", update_config={"step": 1}, norms="local", **ROUNDS),
        {
            "steps": 45,
            "gradient": {"id": "dct", "config": {}},
            "masked": True,
            "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
            "update": {"id": "q", "config": {"step": 1}},
            "norms": "local",
            **ROUNDS,
        },
    ),
    (
        Welcome(1, 45, "raw", {}, True, *SGD, down_codec="d", down_config={"k": 1}, update_layers=["a"]),
        {
            "steps": 45,
            "gradient": {"id": "raw", "config": {}},
            "masked": True,
            "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
            "update": {"layers": ["a"]},
            "down": {"id": "d", "config": {"k": 1}},
        },
    ),
    (Feature(1, 3, 2, 1, b"l", b"codes"), {"v": 2, "n": 1}),
    (Feature(1, 3, 2, 1, b"l", b"codes", 0.25), {"v": 2, "d": 0.25, "n": 1}),
    (Gradient(1, 3, 0.5, 7, 0.25, 0.125, b"g", 0.1), {"loss": 0.5, "right": 7, "dev": 0.25, "s": 0.125, "lr": 0.1}),
    (
        Gradient(1, 3, 0.5, 7, 0.25, 0.125, b"", 0.1, "loud"),
        {"loss": 0.5, "right": 7, "dev": 0.25, "s": 0.125, "lr": 0.1, "warning": "loud"},
    ),
    (
        Gradient(1, 3, 0.5, 7, 0.0, 0.125, b"", 0.1, local_only=True),
        {"loss": 0.5, "right": 7, "dev": 0.0, "s": 0.125, "lr": 0.1, "lo": True},
    ),
    (Codebook(1, 4, b"moved"), {}),
    (Update(1, 3, 90, 270, b"change"), {"n": 90, "left": 270}),
    (Update(1, 3, 90, 0, b"", True), {"n": 90, "left": 0, "test": True}),
    (Update(1, 3, 90, 0, b"change", True, 2), {"n": 90, "left": 0, "test": True, "rest": 2}),
    (Weights(1, 4, b"change", b"books"), {}),
    (Weights(1, 4, b"change", b"books", rest=0), {"rest": 0}),
    (Weights(1, 4, b"weights", b"", True, True), {"whole": True, "resting": True}),
    (Evaluate(1, 0, 2, 1, b"l", b"codes"), {"v": 2, "n": 1}),
    (Evaluate(1, 0, 2, 1, b"l", b"codes", True), {"v": 2, "n": 1, "validation": True}),
    (Result(1, 0, 0.5, 0.125, b"classes"), {"loss": 0.5, "s": 0.125}),
    (messages.Tested(1, 6), {}),
    (Tally(1, 6, 90, 45, 0.5, True), {"n": 90, "right": 45, "loss": 0.5, "best": True}),
    (Ack(1, 4), {}),
    (Bye(1), {}),
    (Bye(1, True), {"gives_up": True}),
    (Resume(1, 5, "a1"), {"token": "a1"}),
    (Resumed(1, 6), {}),
    (Error(1, 3, 10, "no"), {"code": 10, "message": "no"}),
    (Ping(2), {}),
    (Save(1, 7), {}),
    (Saved(1, 7), {}),
    (Saved(1, 7, done=False), {"done": False}),
    (Resume(1, 0, "t", NO_LIFE), {"token": "t", "life": -1}),
    (Resumed(1, 0, back=7, life=5), {"back": 7, "life": 5}),
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
        assert types[name] in (kind, kind | None) or kind in (dict, list), name


@each
def test_what_is_packed_comes_back(message: AnyMessage, header: dict[str, Any]) -> None:
    packed = pack(message)
    assert packed.header == header and packed.kind == KIND_OF[type(message)]
    assert parse(packed) == message == decode(encode(message))


def test_what_has_its_default_is_left_out_and_comes_back() -> None:
    asked = Welcome(1, 45, "raw", {}, True, *SGD, noise_filling=True)
    assert pack(asked).header["noise_filling"] is True and parse(pack(asked)) == asked
    assert set(pack(asked._replace(noise_filling=False)).header) == {"steps", "gradient", "masked", "optimizer"}
    local = asked._replace(local_loss=0.5)
    assert pack(local).header["local_loss"] == 0.5 and parse(pack(local)) == local
    config = asked._replace(update_config={"step": 2})
    assert pack(config).header["update"] == {"config": {"step": 2}} and parse(pack(config)) == config


def test_the_bytes_of_a_feature() -> None:
    expected = (
        "454b57" "02" "03" "02"  # magic, version, kind feature, two parts
        "0d00" "07000000" "02010000"  # 13 bytes of header, session 7, step 258
        "1a000000" "c6fa5995"  # 26 bytes follow, CRC-32
        "7b2276223a312c226e223a327d"  # {"v":1,"n":2}
        "02000000" "03000000"  # lengths of the parts
        "0301" "cafeba"
    )  # fmt: skip
    assert encode(Feature(7, 258, 1, 2, b"\x03\x01", b"\xca\xfe\xba")).hex() == expected


#: What travels in a round and in a test, byte by byte: head, header, lengths of the parts, parts.
GOLDEN = [
    (
        Update(7, 258, 90, 270, b"\xca\xfe", True),
        "454b57"
        "02"
        "0d"
        "01"
        "1f00"
        "07000000"
        "02010000"
        "25000000"
        "78bd3b5f"
        "7b226e223a39302c226c656674223a3237302c2274657374223a747275657d"
        "02000000"
        "cafe",
    ),
    (
        Weights(7, 259, b"\xca\xfe", b"\xba"),
        "454b57020e02000007000000030100000b0000009aab7b7a0200000001000000cafeba",
    ),
    (
        messages.Tested(7, 258),
        "454b57020f00000007000000020100000000000027a84449",
    ),
    (
        Tally(7, 258, 90, 45, 0.5, True),
        "454b57"
        "02"
        "10"
        "00"
        "2a00"
        "07000000"
        "02010000"
        "2a000000"
        "ebe2b9af"
        "7b226e223a39302c227269676874223a34352c226c6f7373223a302e352c2262657374223a747275657d",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), GOLDEN, ids=lambda value: type(value).__name__)
def test_the_bytes_of_rounds_and_tests(message: AnyMessage, expected: str) -> None:
    assert encode(message).hex() == expected and decode(bytes.fromhex(expected)) == message


@each
def test_a_field_of_another_type_is_named(message: AnyMessage, header: dict[str, Any]) -> None:
    good, layout = pack(message), LAYOUTS[KIND_OF[type(message)]]
    for name, (key, kind) in layout.header.items():
        outer, _, inner = key.rpartition(".")
        wrongs: list[Any] = [None, {} if kind is list else [], 1 if kind is bool else True]
        wrongs += [10**400, float("inf")] if kind is float else []
        for wrong in wrongs:
            holder = {**(good.header.get(outer, {}) if outer else good.header), inner: wrong}
            changed = {**good.header, outer: holder} if outer else holder
            with pytest.raises(PayloadError, match=rf"{good.kind} message: '{name}'.* is .*, expected {kind.__name__}"):
                parse(good._replace(header=changed))
    needed = {
        key.split(".")[0] for name, (key, _) in layout.header.items() if name not in layout.message._field_defaults
    }
    for outer in needed:
        lacking = {key: value for key, value in good.header.items() if key != outer}
        with pytest.raises(PayloadError, match=rf"'\w+'.*{outer}.* is None, expected|'{outer}' is None, expected"):
            parse(good._replace(header=lacking))
    with pytest.raises(PayloadError, match=f"{good.kind} message has {len(good.parts) + 1} parts, expected"):
        parse(good._replace(parts=(*good.parts, b"")))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (HELLO._replace(steps=MOST_PLANNED + 1), "hello message: 'steps' is 4294967296, expected 0 to 4294967295"),
        (HELLO._replace(steps=-1), "'steps' is -1"),
        (HELLO._replace(images=-1), "hello message: 'images' is -1"),
        (HELLO._replace(epochs=MOST_PLANNED + 1), "hello message: 'epochs' is 4294967296"),
        (HELLO._replace(device="d" * 65), "of 65 characters: expected 1 to 64"),
        (HELLO._replace(device=""), "device name '' of 0 characters"),
        (HELLO._replace(device="a\nb"), "of 3 characters: expected 1 to 64, all printable"),
        (HELLO._replace(device=" a"), "no space at either end"),
        (
            HELLO._replace(classes=["a", 1]),  # type: ignore[list-item]
            "hello message: 'classes' is ['a', 1], expected names",
        ),
        (Welcome(1, 45, "raw", {}, True, *SGD, round=-1), "welcome message: 'round' is -1, expected 0 to 4294967295"),
        (Welcome(1, 45, "raw", {}, True, *SGD, rounds=-2), "welcome message: 'rounds' is -2"),
        (Welcome(1, 45, "raw", {}, True, *SGD, epoch=MOST_PLANNED + 1), "welcome message: 'epoch' is 4294967296"),
        (Welcome(1, 45, "raw", {}, True, *SGD, round_epochs=-1), "welcome message: 'round_epochs' is -1"),
        (Welcome(1, 45, "raw", {}, True, *SGD, round_seconds=-1.0), "welcome message: 'round_seconds' is -1.0"),
        (Update(1, 0, -1, 0, b""), "update message: 'images' is -1, expected 0 to 4294967295"),
        (Update(1, 0, 1, -3, b""), "update message: 'left' is -3"),
        (Update(1, 0, 1, 3, b"abc", True, 4), "update message: 'rest' is 4, expected -1 to 3, the bytes of the update"),
        (Weights(1, 0, b"abc", b"", rest=-2), "weights message: 'rest' is -2, expected -1 to 3"),
        (
            Welcome(1, 45, "raw", {}, True, *SGD, update_layers=["a", 1]),  # type: ignore[list-item]
            "welcome message: 'update_layers' is ['a', 1], expected names",
        ),
        (Tally(1, 0, 3, 4, 0.5, False), "tally message: 'correct' is 4, expected 0 to 3"),
        (Tally(1, 0, 3, -1, 0.5, False), "tally message: 'correct' is -1"),
        (Feature(1, 0, 0, 1, b"", b"", MOST_MISSING + 0.01), "'missing' is 0.91, expected 0 to 0.9"),
        (Feature(1, 0, 0, 1, b"", b"", -0.5), "'missing' is -0.5"),
        (Welcome(1, 45, "raw", {}, True, *SGD, local_loss=-0.5), "welcome message: 'local_loss' is -0.5, expected 0"),
        (
            Gradient(1, 0, 0.5, 0, 0.0, 0.0, b"abc", 0.1, local_only=True),
            "gradient message: a gradient of 3 B, and 'local_only', which says that there is none",
        ),
        (Pong(0, 0.0, "b\n", "1", 0), "cannot be shown"),
        (Gradient(1, 0, float("nan"), 0, 0.0, 0.0, b"", 0.1), "'loss' is nan, expected float"),
        (Gradient(1, 0, 0.5, 0, 0.0, 0.0, b"", float("nan")), "'rate' (header field 'lr') is nan, expected float"),
    ],
)
def test_what_makes_no_sense_is_refused(message: AnyMessage, reason: str) -> None:
    with pytest.raises(PayloadError, match=re.escape(reason)):
        parse(pack(message))


def test_whole_numbers_pass_for_floats() -> None:
    header = {"loss": 1, "right": 0, "dev": 0, "s": 0, "lr": 1}
    assert parse(Message("gradient", 1, 0, header, (b"",))) == Gradient(1, 0, 1.0, 0, 0.0, 0.0, b"", 1.0)


def test_a_batch_was_learned_from_with_a_gradient_or_by_the_local_loss() -> None:
    left_out = Gradient(1, 3, 0.5, 7, 0.25, 0.125, b"", 0.0)
    assert not left_out.learned
    assert left_out._replace(gradient=b"g").learned and left_out._replace(local_only=True).learned


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

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.features.uniform import Uniform
from edgekit.codecs.updates.fedavg import FedAvg
from edgekit.line.frame import KINDS, Message, decode, encode
from edgekit.server import gate
from edgekit.server.calibrate import calibrator
from edgekit.server.policy import Every, RoundPolicy
from edgekit.server.service import Service
from edgekit.server.setup import Setup
from edgekit.server.train import BackHalf, OptimizerConfig

CODEC = Uniform(bits=4)
CODEC_OF_UPDATES = FedAvg()
FEATURE = np.random.default_rng(0).random((4, 8, 4, 4)).astype(np.float32)
GOOD = (b"\0\1\2\0", CODEC.pack(CODEC.quantize(FEATURE, {})))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
HELLO = {"bundle": "b", "device": "board", "images": 12, "steps": 3, "epochs": 1}
#: The change of the one weight that front halves have here, as the update codec packs it.
CHANGE = CODEC_OF_UPDATES.pack({"weight": np.ones((2, 3), np.float32)}, np.random.default_rng(0))
KEYS = ["bundle", "device", "images", "steps", "epochs", "classes", "n", "v", "left", "test", "validation"]
HEADERS = st.dictionaries(st.sampled_from(KEYS), JSON | st.integers(0, 12) | st.booleans())
GOOD_HEADERS = st.sampled_from(
    [{"n": 4, "v": 0}, {**HELLO, "device": "other"}, {"n": 4, "left": 8}, {"n": 4, "left": 8, "test": True}]
)
PARTS = st.sampled_from([GOOD, (CHANGE,), (b"",), ()]) | st.lists(
    st.sampled_from([*GOOD, CHANGE]) | st.binary(max_size=40), max_size=3
).map(tuple)
#: What a message is answered with, where it is not refused.
ANSWERS = {
    "hello": "welcome", "feature": "gradient", "evaluate": "result", "codebook": "ack", "update": "weights",
    "tested": "tally", "bye": "ack", "ping": "pong",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(archives: Any) -> Service:
    """A service with one session, which keeps learning from whatever is good."""
    optimizer = OptimizerConfig()
    train, evaluation, state = archives
    back = BackHalf.from_programs(train, evaluation, state, torch.device("cpu"), optimizer)
    masked = calibrator("ternary-masked", 0)
    front = {"weight": np.zeros((2, 3), np.float32)}
    setup = Setup("b", CODEC, {}, (8, 4, 4), 3, back, masked, optimizer, "constant", front=front, learned=tuple(front))
    service = Service(setup, rounds=RoundPolicy(Every(epochs=1), CODEC_OF_UPDATES))
    assert service.handle(Message("hello", header=HELLO)).session == 1
    return service


@pytest.fixture(scope="module", autouse=True)
def short_naps() -> Iterator[None]:
    """A message that has to wait is looked after at once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gate, "NAP_S", 0.001)
        yield


def impatient() -> Callable[[], bool]:
    """A line that breaks when its message has to wait."""
    looks = iter([True])
    return lambda: next(looks, False)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    session=st.integers(0, 2),
    step=st.integers(0, 20),
    header=HEADERS | GOOD_HEADERS,
    parts=PARTS,
)
@settings(max_examples=300, deadline=None)
def test_any_message_gets_an_answer_that_fits_a_frame(
    service: Service, kind: str, session: int, step: int, header: dict[str, Any], parts: tuple[bytes, ...]
) -> None:
    # Session 1 stays, so that good messages keep coming through.
    reply = service.handle(Message(kind, 2 if kind == "bye" else session, step, header, parts), impatient())
    assert decode(encode(reply)) == reply
    assert reply.kind in ("error", ANSWERS.get(kind))


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (Message("feature", 0, 0, {"n": 4, "v": 0}, GOOD), "gradient"),
        (Message("update", 0, 0, {"n": 4, "left": 8}, (CHANGE,)), "weights"),
        (Message("update", 0, 1, {"n": 0, "left": 8, "test": True}, (b"",)), "weights"),
        (Message("evaluate", 0, 0, {"n": 4, "v": 0}, GOOD), "result"),
        (Message("tested", 0, 1), "tally"),
        (Message("feature", 0, 1, {"n": 4, "v": 0}, GOOD), "gradient"),
        (Message("bye"), "ack"),
    ],
    ids=lambda value: value.kind if isinstance(value, Message) else value,
)
def test_the_same_service_still_trains(service: Service, message: Message, answer: str) -> None:
    for number in [each for each, session in service.fleet.sessions.items() if session.device != "last"]:
        service.broke(number, None)
    names = {session.device: number for number, session in service.fleet.sessions.items()}
    header = {**HELLO, "device": "last"}
    session = names.get("last") or service.handle(Message("hello", header=header)).session
    assert service.handle(message._replace(session=session)).kind == answer


@pytest.mark.parametrize("wrong", [b"", b"x", CHANGE[:-1], CHANGE + b"x", np.full(6, np.nan, "<f4").tobytes()])
def test_an_update_that_cannot_be_taken_moves_nothing(service: Service, wrong: bytes) -> None:
    header = {**HELLO, "device": "wrong"}
    session = service.handle(Message("hello", header=header)).session
    before = service.rounds.weights["weight"].copy()
    reply = service.handle(Message("update", session, 0, {"n": 4, "left": 8}, (wrong,)))
    assert reply.kind == ("error" if wrong else "weights")
    np.testing.assert_array_equal(service.rounds.weights["weight"], before)
    service.broke(session, None)

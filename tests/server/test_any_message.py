from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.features.uniform import Uniform
from edgekit.line.frame import KINDS, Message, decode, encode
from edgekit.server.calibrate import calibrator
from edgekit.server.service import Service
from edgekit.server.setup import Setup
from edgekit.server.train import BackHalf, OptimizerConfig

CODEC = Uniform(bits=4)
FEATURE = np.random.default_rng(0).random((4, 8, 4, 4)).astype(np.float32)
GOOD = (b"\0\1\2\0", CODEC.pack(CODEC.quantize(FEATURE, {})))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
HEADERS = st.dictionaries(st.sampled_from(["bundle", "device", "steps", "n", "v"]), JSON | st.integers(0, 12))
GOOD_HEADERS = st.sampled_from([{"n": 4, "v": 0}, {"bundle": "b", "device": "board", "steps": 3}])
PARTS = st.just(GOOD) | st.lists(st.sampled_from(GOOD) | st.binary(max_size=40), max_size=3).map(tuple)


@pytest.fixture(scope="module")
def service(archives: Any) -> Service:
    """A service with one session, which keeps learning from whatever is good."""
    optimizer = OptimizerConfig()
    train, evaluation, state = archives
    back = BackHalf.from_programs(train, evaluation, state, torch.device("cpu"), optimizer)
    masked = calibrator("ternary-masked", 0)
    service = Service(Setup("b", CODEC, {}, (8, 4, 4), 3, back, masked, optimizer, "constant"))
    assert service.handle(Message("hello", header={"bundle": "b", "device": "board", "steps": 3})).session == 1
    return service


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
    reply = service.handle(Message(kind, 2 if kind == "bye" else session, step, header, parts))
    assert decode(encode(reply)) == reply
    answers = {"hello": "welcome", "feature": "gradient", "evaluate": "result", "codebook": "ack", "bye": "ack"}
    answers["ping"] = "pong"
    assert reply.kind in ("error", answers.get(kind))


def test_the_same_service_still_trains(service: Service) -> None:
    session = service.handle(Message("hello", header={"bundle": "b", "device": "board", "steps": 3})).session
    reply = service.handle(Message("feature", session, 0, {"n": 4, "v": 0}, GOOD))
    assert reply.kind == "gradient"

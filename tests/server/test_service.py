import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit.codecs.features.raw import Raw
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import PayloadError, UnknownName
from edgekit.line.frame import Message
from edgekit.line.labels import unpack_labels
from edgekit.schedule import learning_rate
from edgekit.server.decode import decode
from edgekit.server.service import Service
from edgekit.server.train import BackHalf, Part
from tests.server.talk import CODEC, CPU, FEATURES, LABELS, SGD, TABLES, coded, feature, greeting, hello, refusal


def test_welcome_says_how_to_train(make: Callable[..., Service]) -> None:
    service = make(policy="stochastic-masked", schedule="cosine")
    replies = [service.handle(greeting(service, name)) for name in "ab"]
    assert [reply.session for reply in replies] == [1, 2]
    assert replies[0].header == {
        "steps": 100,
        "gradient": {"id": "stochastic", "config": {"bits": 4}},
        "masked": True,
        "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0},
    }
    # No weights and no tables: the bundle's are those in use.
    assert replies[0].parts == replies[1].parts == (b"", b"")


def test_another_bundle_is_refused_with_both_digests(make: Callable[..., Service]) -> None:
    service = make()
    text = refusal(service, greeting(service, "a", bundle="0" * 64))
    assert "0" * 64 in text and service.setup.digest in text and "same bundle" in text


@pytest.mark.parametrize("count", [-1, 1 << 32, 10**400, 1.5, None])
@pytest.mark.parametrize("field", ["images", "steps", "epochs"])
def test_a_hello_that_plans_nonsense_is_malformed(make: Callable[..., Service], field: str, count: Any) -> None:
    service = make()
    good = greeting(service, "a")
    refusal(service, good._replace(header={**good.header, field: count}), PayloadError.exit_code)


def test_two_devices_of_one_name_are_refused(make: Callable[..., Service]) -> None:
    service = make()
    session = hello(service, "a")
    text = refusal(service, greeting(service, "a"))
    assert "a device named a is in training (session 1)" in text and "another --name" in text
    service.handle(Message("bye", session))
    assert hello(service, "a") == 2, "its name is free when it has left"


def test_classes_that_the_bundle_does_not_have_are_refused(make: Callable[..., Service]) -> None:
    service = make()
    assert service.handle(greeting(service, "a", classes=["cow"])).kind == "welcome", "the bundle names no classes"
    service.setup = service.setup._replace(class_names=("cat", "dog"))
    assert service.handle(greeting(service, "b", classes=["dog"])).kind == "welcome"
    text = refusal(service, greeting(service, "c", classes=["dog", "cow", "bee"]))
    assert "c has images of 'bee', 'cow', the bundle's classes are cat, dog" in text


@pytest.mark.parametrize("policy", ["none", "masked", "stochastic", "ternary-masked"])
def test_the_gradient_is_that_of_the_back_half_at_the_decoded_feature(
    make: Callable[..., Service], archives: Any, policy: str
) -> None:
    service = make(policy=policy, schedule="cosine")
    session = hello(service)
    train, evaluation, state = archives
    alone = BackHalf.from_programs(train, evaluation, state, CPU, SGD)
    codes = CODEC.quantize(coded(), TABLES)
    for step in range(3):
        before = service.fleet.progress
        reply = service.handle(feature(session, step))
        after = service.fleet.progress
        assert (before, after) == pytest.approx((step / 100, (step + 1) / 100))
        rate = learning_rate("cosine", 0.1, before, after)
        assert reply.header["lr"] == pytest.approx(rate, abs=1e-8)
        ((loss, right, gradient),) = alone.step(
            [Part(decode(CODEC, codes, TABLES, CPU), TABLES["order"], LABELS)], rate
        )
        assert (reply.kind, reply.session, reply.step) == ("gradient", session, step)
        assert reply.header["loss"] == pytest.approx(loss, abs=1e-5) and reply.header["right"] == right
        mask = CODEC.active(codes, TABLES) if "masked" in policy else None
        sent = service.setup.calibrator.codec.unpack(reply.parts[0], gradient.shape, mask)
        deviation = float(np.linalg.norm(gradient - sent) / np.linalg.norm(gradient))
        assert reply.header["dev"] == pytest.approx(deviation, abs=1e-5) and 0 < reply.header["s"] < 10
        if policy == "none":
            np.testing.assert_array_equal(sent, gradient)


def right(result: Message) -> int:
    """How many of the images in `result` are classified right."""
    return int((unpack_labels(result.parts[0], 12, 3) == LABELS).sum())


def test_training_lowers_the_loss_that_evaluate_reports(make: Callable[..., Service]) -> None:
    service = make()
    session = hello(service)
    message = feature(session, 0, kind="evaluate")
    before = service.handle(message)
    assert before.kind == "result" and right(before) <= 12
    assert service.handle(message).header["loss"] == before.header["loss"], "nothing is learned"
    for step in range(30):
        assert service.handle(feature(session, step)).kind == "gradient"
    after = service.handle(message)
    assert after.header["loss"] < 0.7 * before.header["loss"] and right(after) > right(before)


def test_steps_come_one_after_another(make: Callable[..., Service]) -> None:
    service = make()
    session = hello(service)
    for step in range(3):
        assert service.handle(feature(session, step)).kind == "gradient"
    weights = service.setup.back.state_dict()
    for step in (2, 5):
        assert f"got step {step}, expected step 3" in refusal(service, feature(session, step))
    assert all(np.array_equal(array, weights[name]) for name, array in service.setup.back.state_dict().items())
    assert service.handle(feature(session, 3)).kind == "gradient", "the session goes on"


def test_codebooks_are_followed_by_version(make: Callable[..., Service]) -> None:
    service = make(policy="none")
    first, second = hello(service), hello(service)
    patch = CODEC.diff(TABLES, {**TABLES, "codebook": TABLES["codebook"] * np.float32(1.5)}, 0.0)
    update = Message("codebook", first, 1, {}, (patch,))
    assert service.handle(update) == Message("ack", first, 1)
    expected = CODEC.patch(TABLES, patch)["codebook"]
    np.testing.assert_array_equal(service.fleet.sessions[first].tables["codebook"], expected)
    np.testing.assert_array_equal(service.fleet.sessions[second].tables["codebook"], TABLES["codebook"])
    text = refusal(service, feature(first, 0))
    assert "version 0" in text and "version 1" in text
    assert "version 1" in refusal(service, feature(second, 0, v=1, kind="evaluate"))
    assert service.handle(feature(first, 0, v=1)).kind == "gradient"
    assert service.handle(feature(second, 0, v=0)).kind == "gradient"
    for version in (0, 1, 3):
        assert "expected 2" in refusal(service, update._replace(step=version))
    refusal(service, Message("codebook", second, 0, {}, (patch,)))
    refusal(service, update._replace(step=2, parts=(b"\xff",)), PayloadError.exit_code)
    assert service.fleet.sessions[first].tables_version == 1


def test_a_codec_without_tables_takes_no_codebook(make: Callable[..., Service]) -> None:
    service = make(Raw(), {})
    session = hello(service)
    refusal(service, Message("codebook", session, 1, {}, (b"",)), PayloadError.exit_code)
    assert service.handle(feature(session, 0, Raw(), {})).kind == "gradient"


def test_labels_are_checked(make: Callable[..., Service]) -> None:
    service = make()
    good = feature(hello(service), 0)
    for labels in (b"", LABELS[:-1].tobytes(), LABELS.tobytes() * 2):
        assert "12 images" in refusal(service, good._replace(parts=(labels, good.parts[1])), PayloadError.exit_code)
    wrong = LABELS.copy()
    wrong[5] = 3
    text = refusal(service, good._replace(parts=(wrong.tobytes(), good.parts[1])), PayloadError.exit_code)
    assert "label 3, expected below 3 (at byte 5)" in text
    assert service.handle(good).kind == "gradient"


def test_labels_of_many_classes_take_two_bytes(make: Callable[..., Service]) -> None:
    service = make(classes=257)
    good = feature(hello(service), 0)
    refusal(service, good, PayloadError.exit_code)
    wide = LABELS.astype("<u2")
    assert service.handle(good._replace(parts=(wide.tobytes(), good.parts[1]))).kind == "gradient"
    wide[1] = 257
    text = refusal(service, good._replace(step=1, parts=(wide.tobytes(), good.parts[1])), PayloadError.exit_code)
    assert "label 257" in text and "at byte 2" in text


def test_a_batch_that_cannot_be_trained_on_is_refused_and_the_step_stays(make: Callable[..., Service]) -> None:
    service = make(Raw(), {})
    session = hello(service)
    one = Raw().pack({"codes": FEATURES[:1]})
    text = refusal(service, Message("feature", session, 0, {"n": 1, "v": 0}, (LABELS[:1].tobytes(), one)))
    assert "got 1" in text
    assert service.handle(feature(session, 0, Raw(), {})).kind == "gradient"


@pytest.mark.parametrize("kind", ["feature", "codebook", "evaluate", "update", "tested", "bye"])
def test_who_did_not_say_hello_is_told_to(make: Callable[..., Service], kind: str) -> None:
    assert "say hello first" in refusal(make(), Message(kind, 7, 0))


@pytest.mark.parametrize("kind", ["welcome", "gradient", "ack", "error", "result", "weights", "tally"])
def test_what_only_a_server_says_is_refused(make: Callable[..., Service], kind: str) -> None:
    assert f"got {kind}" in refusal(make(), Message(kind))


def test_events_and_counts_tell_who_came_and_went(make: Callable[..., Service]) -> None:
    service = make()
    events: list[dict[str, Any]] = []
    service.on_event = events.append
    first, second = hello(service, "one"), hello(service, "two")
    service.handle(feature(first, 0))
    assert service.handle(Message("bye", first)) == Message("ack", first)
    service.broke(first, None)
    service.broke(second, None)
    service.broke(second, None)
    assert events == [
        {"event": "joined", "session": 1, "device": "one", "steps": 100},
        {"event": "joined", "session": 2, "device": "two", "steps": 100},
        {"event": "left", "session": 1, "device": "one", "steps": 1, "finished": True},
        {"event": "left", "session": 2, "device": "two", "steps": 0, "finished": False},
    ]
    assert (service.fleet.finished, service.fleet.lost, service.fleet.ended) == ({"one"}, {"two"}, 1)
    for session in (first, second):
        assert "has ended" in refusal(service, feature(session, 1))


def test_an_unknown_schedule_is_refused_before_anything_starts(make: Callable[..., Service]) -> None:
    with pytest.raises(UnknownName, match="did you mean cosine"):
        make(schedule="cosin")


def test_a_bug_is_not_swallowed_and_does_not_block_the_next_message(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    session = hello(service)

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(service.setup.back, "step", broken)
        with pytest.raises(ZeroDivisionError):
            service.handle(feature(session, 0))
    assert service.handle(feature(session, 0)).kind == "gradient"


def test_devices_in_threads_all_get_their_steps(make: Callable[..., Service]) -> None:
    service = make()
    replies: dict[int, list[Message]] = {}
    # Who says hello when all before have finished begins another run.
    all_here = threading.Barrier(4, timeout=300)

    def device() -> None:
        session = hello(service, threading.current_thread().name)
        all_here.wait()
        replies[session] = [service.handle(feature(session, step)) for step in range(5)]
        service.handle(Message("bye", session))

    threads = [threading.Thread(target=device) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(replies) == [1, 2, 3, 4] and service.fleet.ended == 4
    for session, answers in replies.items():
        assert [(a.kind, a.session, a.step) for a in answers] == [("gradient", session, step) for step in range(5)]
    assert service.setup.back.state_dict()["norm.num_batches_tracked"] == service.fleet.steps == 20


def test_a_context_learns_from_training_batches_once(make: Callable[..., Service]) -> None:
    codec = SGQ(groups=2, bits=4, coding="context")
    service, stream = make(codec=codec), codec.stream()
    session = hello(service)
    codes = codec.quantize(coded(), TABLES)

    def message(kind: str, step: int) -> Message:
        return Message(kind, session, step, {"n": 12, "v": 0}, (LABELS.tobytes(), stream.pack(codes)))

    sizes = []
    for step in range(3):
        sent = message("feature", step)
        sizes.append(len(sent.parts[1]))
        replies = [service.handle(message("evaluate", 0)), service.handle(sent), service.handle(sent)]
        assert [reply.kind for reply in replies] == ["result", "gradient", "error"]
        # Before the gradient came back, what is sent is of the tables before.
        assert service.handle(message("evaluate", 0)).kind == "result"
        stream.update(codes)
    assert sizes[2] < sizes[1] < sizes[0]
    stream.update(codes)
    text = refusal(service, message("feature", 3), PayloadError.exit_code)
    assert "tables 0.4" in text and "0.0 to 0.3" in text and "begin anew" in text


def test_a_context_does_not_learn_from_a_refused_step(make: Callable[..., Service]) -> None:
    codec = SGQ(groups=2, bits=4, coding="context")
    service, stream = make(codec=codec), codec.stream()
    session = hello(service)
    codes = codec.quantize(coded(), TABLES)
    parts = (LABELS.tobytes(), stream.pack(codes))
    refusal(service, Message("feature", session, 1, {"n": 12, "v": 0}, parts))
    refusal(service, Message("feature", session, 0, {"n": 12, "v": 1}, parts))
    refusal(service, Message("feature", session, 0, {"n": 12, "v": 0}, (parts[0], parts[1][:-1])), 7)
    for step in range(2):
        sent = Message("feature", session, step, {"n": 12, "v": 0}, (LABELS.tobytes(), stream.pack(codes)))
        assert service.handle(sent).kind == "gradient"
        stream.update(codes)

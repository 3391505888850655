"""The local loss on a device: how its gradient joins the server's, and sessions that train with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import LOCAL, Bundle, write_bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import gradient_codec
from edgekit.data.base import Dataset
from edgekit.errors import BackendError, BundleError, PayloadError
from edgekit.line.frame import Message
from edgekit.line.meter import Meter
from edgekit.runtime.front import Forward, Front, Local
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.local_loss import LocalLoss, one_hot
from edgekit.server import local_loss as server
from tests.runtime.loopback import service, train


class Opened:
    """Of a front half only what says that its local head is asked for."""

    classes, opened = 3, False

    def open_local(self) -> None:
        self.opened = True


def local_loss(weight: float) -> LocalLoss:
    front: Any = Opened()
    return LocalLoss(front, weight, Meter())


def drawn(rng: np.random.Generator, length: float = 1.0) -> np.ndarray:
    gradient = rng.standard_normal((2, 3, 4, 4), dtype=np.float32)
    return np.asarray(gradient * np.float32(length / np.linalg.norm(gradient)))


def norm(gradient: np.ndarray) -> float:
    return float(np.linalg.norm(gradient.ravel()))


class TestJoined:
    @pytest.mark.parametrize("weight", [0.5, 2.0])
    @pytest.mark.parametrize("length", [1e-4, 1.0, 300.0])
    def test_it_is_as_long_as_the_weight_says(self, weight: float, length: float, rng: np.random.Generator) -> None:
        gradient, own = drawn(rng, 3.0), drawn(rng, length)
        joint = local_loss(weight).joined(Local(1.0, own, {}), gradient)
        np.testing.assert_allclose(joint, gradient + weight * 3.0 / length * own, rtol=1e-4, atol=1e-5)
        assert joint.dtype == np.float32 and norm(joint - gradient) == pytest.approx(weight * 3.0, rel=1e-4)

    def test_alone_it_is_as_long_as_both_were_last(self, rng: np.random.Generator) -> None:
        loss, locals_ = local_loss(0.5), [Local(1.0, drawn(rng, length), {}) for length in (1.0, 7.0, 2.0)]
        first = loss.joined(locals_[0], drawn(rng, 3.0))
        for own in locals_[1:]:
            alone = loss.joined(own, None)
            assert norm(alone) == pytest.approx(norm(first), rel=1e-4)
            np.testing.assert_allclose(alone / norm(alone), own.gradient / norm(own.gradient), atol=1e-6)
        second = loss.joined(locals_[0], drawn(rng, 0.1))
        assert norm(loss.joined(locals_[1], None)) == pytest.approx(norm(second), rel=1e-4)

    def test_before_the_first_gradient_it_has_its_own_length(self, rng: np.random.Generator) -> None:
        own = drawn(rng, 0.7)
        np.testing.assert_array_equal(local_loss(0.5).joined(Local(1.0, own, {}), None), own)

    def test_a_gradient_of_zeros_moves_nothing(self, rng: np.random.Generator) -> None:
        zeros, own, loss = np.zeros((2, 3, 4, 4), np.float32), drawn(rng), local_loss(0.5)
        assert not loss.joined(Local(1.0, own, {}), zeros).any()
        np.testing.assert_array_equal(loss.joined(Local(0.0, zeros, {}), own), own)
        assert not loss.joined(Local(0.0, zeros, {}), None).any()

    def test_without_a_local_loss_it_is_the_servers(self, rng: np.random.Generator) -> None:
        loss, gradient = local_loss(0.0), drawn(rng)
        forward: Any = None
        assert loss.of(forward, np.array([1])) is None and loss.joined(None, gradient) is gradient
        with pytest.raises(PayloadError, match="gradient message: 'local_only', and there is no local loss"):
            loss.joined(None, None)

    def test_a_head_is_opened_where_it_is_needed_and_the_loss_added_up(self, rng: np.random.Generator) -> None:
        fronts: list[Any] = [Opened(), Opened()]
        for front, weight in zip(fronts, (0.0, 0.5), strict=True):
            LocalLoss(front, weight, Meter())
        assert [front.opened for front in fronts] == [False, True]
        loss = local_loss(1.0)
        for value in (2.0, 0.5):
            loss.joined(Local(value, drawn(rng), {}), drawn(rng))
        assert loss.total == 5.0  # two images each


def test_one_hot() -> None:
    assert one_hot(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]] and one_hot(np.array([1]), 3).dtype == "f4"


class Followed(FrontHalf):
    """A front half that keeps the gradients that it got at the cut, and what its local head gave."""

    def __init__(self, bundle: Bundle) -> None:
        self.at_cut: list[np.ndarray] = []
        self.of_head: list[Local] = []
        super().__init__(bundle, "onnxruntime", 1)

    def local(self, forward: Forward, labels: np.ndarray) -> Local:
        self.of_head.append(super().local(forward, labels))
        return self.of_head[-1]

    def backward(self, forward: Forward, gradient: np.ndarray) -> Arrays:
        self.at_cut.append(gradient)
        return super().backward(forward, gradient)


def epochs(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "epoch"]


@pytest.mark.parametrize("depth", [1, 3])
def test_the_head_learns_with_the_front_half(small_bundle: Bundle, digits: Dataset, depth: int) -> None:
    plain, without = train(small_bundle, digits, service(small_bundle).handle, epochs=3, in_flight=depth)
    handle = service(small_bundle, local=server.LocalLoss(0.5)).handle
    device, events = train(small_bundle, digits, handle, epochs=3, in_flight=depth)
    losses = [event["head_loss"] for event in epochs(events)]
    assert losses[2] < losses[1] < losses[0] < 3 and "head_loss" not in epochs(without)[0]
    for name, array in small_bundle.head_weights().items():
        assert not np.array_equal(device.front.state[name], array)
        assert name in device.front.learned and name not in plain.front.state and name not in plain.front.learned
    # The line carries what it did: codebooks move a little otherwise.
    for way in ("bytes_up", "bytes_down"):
        assert epochs(events)[0][way] == pytest.approx(epochs(without)[0][way], rel=0.05)


def test_rare_gradients_take_fewer_bytes_and_every_batch_is_learned_from(small_bundle: Bundle, digits: Dataset) -> None:
    found, replies = {}, list[Message]()
    for every in (1, 4):
        answer = service(small_bundle, local=server.LocalLoss(0.5, every)).handle

        def handle(message: Message, answer: Any = answer) -> Message:
            reply: Message = answer(message)
            replies.extend([reply] if reply.kind == "gradient" else [])
            return reply

        replies.clear()
        _, events = train(small_bundle, digits, handle, epochs=2)
        found[every] = epochs(events)[-1]
        assert [bool(reply.parts[0]) for reply in replies] == [step % every == 0 for step in range(40)]
        assert [reply.header.get("lo", False) for reply in replies] == [step % every != 0 for step in range(40)]
        assert found[every]["images"] == 1280
    assert found[4]["bytes_down"] < 0.4 * found[1]["bytes_down"]
    # Of the gradients that came, not of all steps.
    assert found[4]["gradient_deviation"] == pytest.approx(found[1]["gradient_deviation"], rel=0.5)


def test_both_gradients_reach_the_weights(
    small_bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Followed] = []

    def make(bundle: Bundle, *_: Any) -> Followed:
        kept.append(Followed(bundle))
        return kept[-1]

    answer, sent = service(small_bundle, "none", local=server.LocalLoss(0.5, 3)).handle, list[bytes]()

    def handle(message: Message) -> Message:
        reply = answer(message)
        sent.extend(reply.parts if reply.kind == "gradient" else [])
        return reply

    monkeypatch.setattr("tests.runtime.loopback.FrontHalf", make)
    train(small_bundle, digits, handle, epochs=1)
    (front,) = kept
    assert len(front.at_cut) == len(front.of_head) == len(sent) == 20
    for step, (joint, local, payload) in enumerate(zip(front.at_cut, front.of_head, sent, strict=True)):
        own = local.gradient / norm(local.gradient)
        if payload:
            gradient = gradient_codec("raw", {}).unpack(payload, joint.shape, None)
            np.testing.assert_allclose(joint, gradient + 0.5 * norm(gradient) * own, rtol=1e-3, atol=1e-6)
        else:
            np.testing.assert_allclose(joint, own * norm(front.at_cut[step - step % 3]), rtol=1e-3, atol=1e-7)


def test_a_bundle_without_a_head_is_refused(small_bundle: Bundle, digits: Dataset, tmp_path: Path) -> None:
    manifest = {name: value for name, value in small_bundle.manifest.items() if name != "files"}
    manifest["graphs"] = {name: graph for name, graph in manifest["graphs"].items() if name != LOCAL}
    files = {name: small_bundle.read(name) for name in small_bundle.manifest["files"] if not name.startswith("local")}
    older = write_bundle(str(tmp_path / "older"), manifest, files)
    # It trains as ever.
    _, events = train(older, digits, service(older).handle, epochs=1)
    assert events[-1]["images"] == 640
    answer = service(older).handle

    def handle(message: Message) -> Message:
        reply = answer(message)
        return reply._replace(header={**reply.header, "local_loss": 0.5}) if reply.kind == "welcome" else reply

    with pytest.raises(BundleError, match=r"older has no local head, and the server .*: export the bundle again"):
        train(older, digits, handle)


def test_a_session_without_a_local_loss_wants_gradients(small_bundle: Bundle, digits: Dataset) -> None:
    answer = service(small_bundle).handle

    def handle(message: Message) -> Message:
        reply = answer(message)
        if reply.kind != "gradient":
            return reply
        return reply._replace(header={**reply.header, "lo": True}, parts=(b"",))

    with pytest.raises(PayloadError, match="'local_only', and there is no local loss"):
        train(small_bundle, digits, handle)


def test_a_head_of_other_weights_is_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    manifest = {name: value for name, value in small_bundle.manifest.items() if name != "files"}
    files = {name: small_bundle.read(name) for name in small_bundle.manifest["files"]}
    files["local.safetensors"] = files["tables.safetensors"]
    front: Front = FrontHalf(write_bundle(str(tmp_path / "b"), manifest, files), "onnxruntime", 1)
    with pytest.raises(
        BundleError, match=r"local.safetensors has \['codebook', 'order'\], expected \['local_head.conv"
    ):
        front.open_local()


def test_the_local_loss_is_checked_by_golden_data(small_bundle: Bundle) -> None:
    front = FrontHalf(small_bundle, "reference", 1)
    front.open_local()
    golden = small_bundle.arrays("golden.safetensors")
    front.passes.check_local(golden)
    wrong = {**golden, "local.gradient": -golden["local.gradient"]}
    with pytest.raises(BackendError, match=r"reproduces the golden gradients with an error of"):
        front.passes.check_local(wrong)
    del wrong["labels"]
    with pytest.raises(BundleError, match=r"golden.safetensors lacks \['labels'\]: export it again"):
        front.passes.check_local(wrong)

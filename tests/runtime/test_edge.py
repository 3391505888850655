"""The device loop against the real service, in one process, through real frames."""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekit import tensorfile
from edgekit.bundle import Bundle, write_bundle
from edgekit.codecs.entropy.context import ContextStream
from edgekit.data.base import Dataset
from edgekit.errors import BackendError, BundleError, Diverged, PayloadError, Refused, UsageError
from edgekit.line import frame
from edgekit.line.frame import Message
from edgekit.line.meter import Meter
from edgekit.runtime.edge import Device, Images, Options
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.transport import Loopback
from edgekit.server.calibrate import calibrator
from edgekit.server.service import Service, service_from_bundle
from edgekit.server.train import OptimizerConfig
from tests.conftest import export_small

TEST_SHARE = 90


def service(bundle: Bundle, policy: str = "stochastic-masked") -> Service:
    config = OptimizerConfig("sgd", 0.05, 0.9, 5e-4)
    return service_from_bundle(bundle, torch.device("cpu"), calibrator(policy, 0), config, "cosine")


def train(bundle: Bundle, digits: Dataset, handle: Any, **options: Any) -> tuple[Device, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    front = FrontHalf(bundle, "onnxruntime", 1)
    device = Device(bundle, front, Loopback(handle, Meter()), Options("d", **options), events.append)
    device.train(
        Images(digits.train_images[:640], digits.train_labels[:640]),
        Images(digits.test_images[:TEST_SHARE], digits.test_labels[:TEST_SHARE]),
    )
    return device, events


def test_learns_with_every_codec(any_bundle: Bundle, digits: Dataset) -> None:
    before = any_bundle.arrays("front.safetensors")
    policy = "none" if any_bundle.codec.codec_id == "raw" else "stochastic-masked"
    device, events = train(any_bundle, digits, service(any_bundle, policy).handle, epochs=4)
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["accuracy"] > 60 and epochs[-1]["loss"] < epochs[0]["loss"] * 0.7
    for name, value in device.front.state.items():
        if not name.endswith("num_batches_tracked"):
            assert not np.array_equal(value, before[name]), f"{name} did not move"


def test_front_half_learning_is_worth_something(small_bundle: Bundle, digits: Dataset) -> None:
    """With a front half that stands still the loss ends higher: gradients really arrive and point the right way."""
    _, moving = train(small_bundle, digits, service(small_bundle, "none").handle, epochs=3, codebook_tolerance=0.05)
    frozen_service = service(small_bundle, "none")

    def no_gradient(message: Message) -> Message:
        reply = frozen_service.handle(message)
        return reply._replace(parts=(bytes(len(reply.parts[0])),)) if reply.kind == "gradient" else reply

    _, frozen = train(small_bundle, digits, no_gradient, epochs=3, codebook_tolerance=0.05)
    assert moving[-1]["loss"] < 0.95 * frozen[-1]["loss"]


def test_both_sides_hold_the_same_tables(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle)
    seen: list[Any] = []

    def handle(message: Message) -> Message:
        if message.kind == "bye":
            seen.append(server._sessions[message.session].tables)
        return server.handle(message)

    device, events = train(small_bundle, digits, handle, epochs=2, codebook_tolerance=0.02)
    assert events[-2]["codebook"]["version"] > 3
    np.testing.assert_array_equal(seen[0]["codebook"], device.front.tables["codebook"])


@pytest.mark.parametrize("depth", [2, 4])
def test_several_batches_in_flight(small_bundle: Bundle, digits: Dataset, depth: int) -> None:
    _, events = train(small_bundle, digits, service(small_bundle).handle, epochs=4, in_flight=depth)
    assert events[-1]["images"] == 4 * 640
    assert events[-1]["accuracy"] > 50


def coded_by(coding: str, bundle: Bundle, folder: Path, **settings: Any) -> Bundle:
    """`bundle`, its indices on the line by `coding`."""
    config = {**bundle.codec.config, "coding": coding, **settings}
    manifest = {**bundle.manifest, "codec": {"id": "sgq", "config": config}}
    files = {name: bundle.read(name) for name in manifest.pop("files")}
    return write_bundle(str(folder / coding), manifest, files)


@pytest.fixture(scope="module")
def context_bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Bundle:
    return coded_by("context", small_bundle, tmp_path_factory.mktemp("context"))


@pytest.mark.parametrize("depth", [1, 3])
def test_codings_send_the_same_in_fewer(small_bundle: Bundle, digits: Dataset, depth: int, tmp_path: Path) -> None:
    states, sent = [], []
    for coding in ("packed", "context", "temporal"):
        bundle = coded_by(coding, small_bundle, tmp_path)
        device, events = train(bundle, digits, service(bundle).handle, epochs=4, in_flight=depth)
        states.append(device.front.state)
        sent.append([event["bytes_up"] for event in events if event["event"] == "epoch"])
    for name, value in states[0].items():
        for state in states[1:]:
            np.testing.assert_array_equal(state[name], value)
    packed, context, memory = sent
    assert context[3] < 0.9 * packed[3]
    # Two bytes an image are its number, and nothing is remembered yet.
    assert memory[0] > context[0] and memory[3] - memory[2] < 0.9 * (context[3] - context[2])


def test_a_context_does_not_remember_for_ever(context_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match=r"9 batches in flight.*at most 8"):
        train(context_bundle, digits, service(context_bundle).handle, in_flight=9)


def test_bytes_are_those_of_the_frames(small_bundle: Bundle, digits: Dataset) -> None:
    server, up, down = service(small_bundle), [], []

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        if message.kind != "evaluate":
            up.append(len(frame.encode(message)))
            down.append(len(frame.encode(reply)))
        return reply

    _, events = train(small_bundle, digits, handle, epochs=1)
    assert (events[-1]["bytes_up"], events[-1]["bytes_down"]) == (sum(up), sum(down))


def test_evaluation_covers_the_whole_test_set_and_teaches_nothing(small_bundle: Bundle, digits: Dataset) -> None:
    server, counted = service(small_bundle), []
    state = server.back.state_dict()

    def handle(message: Message) -> Message:
        if message.kind == "evaluate":
            counted.append(message.header["n"])
        return server.handle(message)

    front = FrontHalf(small_bundle, "onnxruntime", 1)
    device = Device(small_bundle, front, Loopback(handle, Meter()), Options("d"), lambda event: None)
    device.hello(1)
    accuracy, loss = device.evaluate(Images(digits.test_images[:70], digits.test_labels[:70]))
    assert sum(counted) == 70 and 0 <= accuracy <= 100 and loss > 0
    for name, value in server.back.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_weights_are_kept(small_bundle: Bundle, digits: Dataset, tmp_path: Any) -> None:
    device, events = train(small_bundle, digits, service(small_bundle).handle, epochs=1, out=str(tmp_path))
    json.dumps(events)
    kept = tensorfile.loads((tmp_path / "front.safetensors").read_bytes())
    for name, value in device.front.state.items():
        np.testing.assert_array_equal(kept[name], value)


def test_wrong_bundle_is_refused_with_both_hashes(small_bundle: Bundle, any_bundle: Bundle, digits: Dataset) -> None:
    if any_bundle.digest == small_bundle.digest:
        pytest.skip("the same bundle")
    with pytest.raises(Refused) as caught:
        train(any_bundle, digits, service(small_bundle).handle)
    assert small_bundle.digest in str(caught.value) and any_bundle.digest in str(caught.value)


def test_reply_out_of_order(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle)

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        return reply._replace(step=reply.step + 1) if reply.kind == "gradient" else reply

    with pytest.raises(PayloadError, match="got a gradient message of step 1, expected gradient of step 0"):
        train(small_bundle, digits, handle)


def test_too_few_images_for_a_batch(small_bundle: Bundle, digits: Dataset) -> None:
    with pytest.raises(UsageError, match="640 training images in batches of 1000"):
        train(small_bundle, digits, service(small_bundle).handle, batch=1000)


def test_running_statistics_follow_pytorch(small_bundle: Bundle, rng: np.random.Generator) -> None:
    front = FrontHalf(small_bundle, "onnxruntime", 1)
    norm = torch.nn.BatchNorm2d(8)
    conv = torch.nn.Conv2d(1, 8, 3, padding=1, bias=False)
    conv.weight.data = torch.from_numpy(front.state["features.0.weight"].copy())
    for _ in range(3):
        image = rng.standard_normal((5, 1, 16, 16), dtype=np.float32)
        front.forward(image)
        norm(conv(torch.from_numpy(image)))
    assert isinstance(norm.running_mean, torch.Tensor) and isinstance(norm.running_var, torch.Tensor)
    np.testing.assert_allclose(front.state["features.1.running_mean"], norm.running_mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(front.state["features.1.running_var"], norm.running_var.numpy(), rtol=1e-4)


@pytest.mark.parametrize("option", ["epochs", "in_flight"])
def test_counts_below_one(small_bundle: Bundle, digits: Dataset, option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} of 0: expected at least 1"):
        train(small_bundle, digits, service(small_bundle).handle, **{option: 0})


@pytest.mark.parametrize(
    ("kind", "header", "message"),
    [
        ("gradient", {"right": 33}, "'right' is 33, expected 0 to 32"),
        ("gradient", {"right": -1}, "'right' is -1, expected 0 to 32"),
        ("gradient", {"loss": float("nan")}, "'loss' is nan"),
        ("gradient", {"s": None}, "'s' is None"),
        ("result", {"right": 10**400}, "expected 0 to 32"),
        ("welcome", {"masked": 1}, "'masked' is 1"),
        (
            "welcome",
            {"optimizer": {"name": "sgd", "lr": float("inf"), "momentum": 0.9, "weight_decay": 0}},
            "'lr' is inf",
        ),
    ],
)
def test_replies_that_make_no_sense(
    small_bundle: Bundle, digits: Dataset, kind: str, header: dict[str, Any], message: str
) -> None:
    server = service(small_bundle)

    def handle(request: Message) -> Message:
        reply = server.handle(request)
        return reply._replace(header={**reply.header, **header}) if reply.kind == kind else reply

    with pytest.raises(PayloadError, match=message):
        train(small_bundle, digits, handle, epochs=1)


def test_weights_that_go_to_infinity(small_bundle: Bundle, digits: Dataset) -> None:
    server = service(small_bundle, "none")

    def handle(message: Message) -> Message:
        reply = server.handle(message)
        if reply.kind != "gradient":
            return reply
        return reply._replace(parts=(np.full(32 * 16 * 8 * 8, 1e38, dtype="<f4").tobytes(),))

    with pytest.raises(Diverged, match="is not finite any more: training diverged, lower --lr"):
        train(small_bundle, digits, handle, epochs=1)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("front.safetensors", "features.0.weight"),
        ("front.safetensors", "features.1.running_mean"),
        ("golden.safetensors", "image"),
        ("golden.safetensors", "deployed.codes"),
    ],
)
def test_bundle_that_lacks_an_array(small_bundle: Bundle, tmp_path: Any, file: str, name: str) -> None:
    files = {known: small_bundle.read(known) for known in small_bundle.manifest["files"]}
    arrays = tensorfile.loads(files[file])
    del arrays[name]
    content = {key: value for key, value in small_bundle.manifest.items() if key not in ("files", "format")}
    lacking = write_bundle(str(tmp_path / "b"), content, {**files, file: tensorfile.dumps(arrays)})
    with pytest.raises(BundleError, match=re.escape(name)):
        FrontHalf(lacking, "onnxruntime", 1)


@pytest.fixture(scope="module")
def shuffled_bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Bundle:
    """small_bundle with an order that is far from the best."""
    files = {name: small_bundle.read(name) for name in small_bundle.manifest["files"]}
    tables = small_bundle.tables()
    shuffled = np.random.default_rng(3).permutation(16)
    tables = {"order": tables["order"][shuffled], "codebook": np.ascontiguousarray(tables["codebook"][:, shuffled])}
    # Other tables have other codes, and the deployed graph holds both tables and filters in their order.
    front = FrontHalf(small_bundle, "onnxruntime", 1)
    front.set_tables(tables)
    golden = small_bundle.arrays("golden.safetensors")
    golden["deployed.codes"] = front.encode(golden["image"])["codes"]
    model = onnx.load_from_string(files["front.onnx"])
    held = front._weights(front._deployed, front._deployed_values())
    for tensor in model.graph.initializer:
        if tensor.name in held:
            tensor.CopyFrom(numpy_helper.from_array(held[tensor.name], tensor.name))
    files["front.onnx"] = model.SerializeToString()
    files["tables.safetensors"] = tensorfile.dumps(tables)
    files["golden.safetensors"] = tensorfile.dumps(golden)
    content = {key: value for key, value in small_bundle.manifest.items() if key not in ("files", "format")}
    return write_bundle(str(tmp_path_factory.mktemp("shuffled") / "bundle"), content, files)


class TestRegrouping:
    """The order of channels changes between epochs; graphs, server and files follow."""

    @pytest.mark.parametrize("depth", [1, 3])
    def test_both_sides_follow(self, shuffled_bundle: Bundle, digits: Dataset, depth: int, tmp_path: Any) -> None:
        server = service(shuffled_bundle)
        sessions: list[Any] = []

        def handle(message: Message) -> Message:
            if message.kind == "bye":
                sessions.append(server._sessions[message.session])
            return server.handle(message)

        device, events = train(
            shuffled_bundle, digits, handle, epochs=4, regroup_every=1, in_flight=depth, out=str(tmp_path / "out")
        )
        health = events[-2]["codebook"]
        assert health["regrouped"] >= 1 and health["version"] == sessions[0].version
        for name in ("order", "codebook"):
            np.testing.assert_array_equal(sessions[0].tables[name], device.front.tables[name])
        assert not np.array_equal(device.front.tables["order"], shuffled_bundle.tables()["order"])
        assert events[-1]["accuracy"] > 60
        saved = tensorfile.loads((tmp_path / "out" / "tables.safetensors").read_bytes())
        np.testing.assert_array_equal(saved["order"], device.front.tables["order"])

    @pytest.mark.parametrize("coding", ["context", "temporal"])
    def test_a_context_starts_anew(
        self, context_bundle: Bundle, coding: str, digits: Dataset, monkeypatch: Any, tmp_path: Path
    ) -> None:
        bundle = coded_by(coding, context_bundle, tmp_path)
        reset = create_autospec(ContextStream.reset, side_effect=ContextStream.reset)
        monkeypatch.setattr(ContextStream, "reset", reset)
        monkeypatch.setattr("edgekit.codecs.codebook.GAIN", 0)  # any other grouping will do
        device, events = train(bundle, digits, service(bundle).handle, epochs=4, regroup_every=2, in_flight=2)
        assert reset.call_count == events[-1]["codebook"]["regrouped"] == 1
        assert reset.call_args.args[0] is device._stream
        assert device._stream.version == events[-1]["step"] // 2
        assert events[-1]["accuracy"] > 60

    def test_gradients_are_those_of_the_new_order(self, shuffled_bundle: Bundle, digits: Dataset) -> None:
        """The same feature and gradient, in the old order and in a new one: the same weights' gradients, and codes."""
        front = FrontHalf(shuffled_bundle, "onnxruntime", 1)
        image = digits.train_images[:8].astype(np.float32) / 255
        order = front.tables["order"]
        first = front.forward(image)
        feature = np.empty_like(first.feature)
        feature[:, order] = first.feature
        raw = np.random.default_rng(0).normal(size=feature.shape).astype(np.float32)
        expected = front.backward(first, np.ascontiguousarray(raw[:, order]))
        new = np.random.default_rng(5).permutation(16)
        book = np.empty_like(front.tables["codebook"])
        book[:, order] = front.tables["codebook"]
        front.set_tables({"order": new, "codebook": np.ascontiguousarray(book[:, new])})
        second = front.forward(image)
        np.testing.assert_allclose(second.feature, feature[:, new], rtol=1e-5, atol=1e-6)
        codes = shuffled_bundle.codec.quantize(second.feature, front.tables)["codes"]
        assert (second.codes["codes"] == codes).mean() > 0.999
        got = front.backward(second, np.ascontiguousarray(raw[:, new]))
        for name, gradient in expected.items():
            np.testing.assert_allclose(got[name], gradient, rtol=1e-3, atol=1e-4 * abs(gradient).max())

    def test_the_deployed_filters_follow(self, shuffled_bundle: Bundle, digits: Dataset) -> None:
        """The groups in reverse give the same codes in reverse."""
        front, groups = FrontHalf(shuffled_bundle, "onnxruntime", 1), shuffled_bundle.codec.config["groups"]
        assert shuffled_bundle.graphs["front"].ordered
        image = digits.train_images[:8].astype(np.float32) / 255
        first = front.encode(image)["codes"]
        places = np.arange(16).reshape(groups, -1)[::-1].reshape(-1)
        tables = front.tables
        book = np.ascontiguousarray(tables["codebook"][:, places])
        front.set_tables({"order": tables["order"][places], "codebook": book})
        second = front.encode(image)["codes"]
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(second, first[:, ::-1])

    def test_a_bundle_that_says_nothing_of_its_order_does_not_open(
        self, shuffled_bundle: Bundle, tmp_path: Any
    ) -> None:
        files = {name: shuffled_bundle.read(name) for name in shuffled_bundle.manifest["files"]}
        content = {key: value for key, value in shuffled_bundle.manifest.items() if key not in ("files", "format")}
        front = dict(content["graphs"]["front"], ordered=[])
        content["graphs"] = dict(content["graphs"], front=front)
        with pytest.raises(BackendError, match="of the golden codes 'codes', expected 99%"):
            FrontHalf(write_bundle(str(tmp_path / "bundle"), content, files), "onnxruntime", 1)

    def test_never_unless_asked(self, shuffled_bundle: Bundle, digits: Dataset) -> None:
        device, events = train(shuffled_bundle, digits, service(shuffled_bundle).handle, epochs=2)
        assert events[-2]["codebook"]["regrouped"] == 0
        np.testing.assert_array_equal(device.front.tables["order"], shuffled_bundle.tables()["order"])

    @pytest.mark.parametrize("codec", ["raw", "product"])
    def test_an_order_for_good_is_refused_first(self, codec: str, digits: Dataset, tmp_path: Any) -> None:
        config = {"groups": 4} if codec == "product" else {}
        bundle = export_small(tmp_path / "bundle", digits, codec, **config)
        with pytest.raises(UsageError, match=r"--regroup-every 1: the order of channels in .* is for good"):
            train(bundle, digits, service(bundle, "none").handle, epochs=2, regroup_every=1)

    def test_fewer_than_none_is_refused(self, small_bundle: Bundle, digits: Dataset) -> None:
        with pytest.raises(UsageError, match="regroup_every of -1: expected at least 0"):
            train(small_bundle, digits, service(small_bundle).handle, regroup_every=-1)

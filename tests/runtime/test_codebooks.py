"""Codebooks that follow the features and are grouped anew; graphs, server and files follow."""

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit import tensorfile
from edgekit.bundle import Bundle, write_bundle
from edgekit.codecs.codebook import OnlineCodebook
from edgekit.codecs.entropy.context import ContextStream
from edgekit.data.base import Dataset
from edgekit.errors import BackendError, UsageError
from edgekit.line.frame import Message
from edgekit.line.messages import MOST_MISSING, Feature, pack, parse
from edgekit.runtime.codebooks import codebooks_of
from edgekit.runtime.learn import FrontHalf
from tests.conftest import export_small
from tests.runtime.loopback import coded_by, service, train


@pytest.fixture(scope="module")
def context_bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Bundle:
    return coded_by("context", small_bundle, tmp_path_factory.mktemp("context"))


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
    held = front._weights(front._deployed)
    for tensor in model.graph.initializer:
        if tensor.name in held:
            tensor.CopyFrom(numpy_helper.from_array(held[tensor.name], tensor.name))
    files["front.onnx"] = model.SerializeToString()
    files["tables.safetensors"] = tensorfile.dumps(tables)
    files["golden.safetensors"] = tensorfile.dumps(golden)
    content = {key: value for key, value in small_bundle.manifest.items() if key not in ("files", "format")}
    return write_bundle(str(tmp_path_factory.mktemp("shuffled") / "bundle"), content, files)


@pytest.mark.parametrize(("lost", "told"), [(0.12345, 0.12), (0.899, 0.9), (0.95, MOST_MISSING), (1.0, MOST_MISSING)])
def test_what_is_missing_fits_its_message(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, lost: float, told: float
) -> None:
    """Two digits, and never more than a server takes, be the codebook as bad as it may."""
    books = codebooks_of(FrontHalf(small_bundle, "onnxruntime", 1), 0.9, 0.1, 0, 0)
    assert books is not None
    monkeypatch.setattr(OnlineCodebook, "missing", property(lambda self: lost))
    assert books.missing == told
    message = Feature(1, 0, 0, 1, b"", b"", books.missing)
    assert parse(pack(message)) == message


class TestRegrouping:
    """The order of channels changes between epochs; graphs, server and files follow."""

    @pytest.mark.parametrize("depth", [1, 3])
    def test_both_sides_follow(self, shuffled_bundle: Bundle, digits: Dataset, depth: int, tmp_path: Any) -> None:
        server = service(shuffled_bundle)
        sessions: list[Any] = []

        def handle(message: Message) -> Message:
            if message.kind == "bye":
                sessions.append(server.fleet.sessions[message.session])
            return server.handle(message)

        device, events = train(
            shuffled_bundle, digits, handle, epochs=4, regroup_every=1, in_flight=depth, out=str(tmp_path / "out")
        )
        health = events[-2]["codebook"]
        assert health["regrouped"] >= 1 and health["version"] == sessions[0].tables_version
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
        assert reset.call_args.args[0] is device.session.stream
        assert device.session.stream.version == events[-1]["step"] // 2
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

    @pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
    def test_a_tolerance_that_is_none_is_refused(self, tolerance: float, small_bundle: Bundle, digits: Dataset) -> None:
        with pytest.raises(UsageError, match=r"codebook_tolerance of .*: expected at least 0"):
            train(small_bundle, digits, service(small_bundle).handle, codebook_tolerance=tolerance)

"""check_bundle: good bundles pass on every engine, damaged ones are told apart; float16 scores; the matrix."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit import tensorfile
from edgekit.bundle import Bundle, write_bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.data.base import Dataset
from edgekit.device_profiles.registry import profile
from edgekit.errors import BackendError, BundleError
from edgekit.export.build import build_bundle
from edgekit.export.parity import check as checking
from edgekit.export.parity.check import check_bundle
from edgekit.export.parity.half_scores import round_scores, simulate
from edgekit.export.parity.report import Report, equal_codes, small_error, worst_gradient
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network


class Net(nn.Module):
    """16x16 grey image -> 16x8x8 at "front" -> 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.back = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.back(self.front(x))
        return y


def export(path: Path, digits: Dataset, device: str, codec: str = "sgq", batch_size: int = 2, **config: int) -> Bundle:
    torch.manual_seed(0)
    return build_bundle(
        str(path),
        Network(Net(), "net", "front"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec(codec, config or ({"groups": 4} if codec == "sgq" else {}))),
        BoardSettings(device, profile(device).target.norm, batch_size),
    )


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """For the Jetson Nano: static batch of 2, codebooks as initialisers, scores by convolution, opset 11."""
    return export(tmp_path_factory.mktemp("nano") / "bundle", digits, "jetson-nano")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """For the Atlas 200 DK: static batch, codebooks as inputs, scores by matrix product."""
    return export(tmp_path_factory.mktemp("atlas") / "bundle", digits, "atlas-200-dk")


def changed(bundle: Bundle, path: Path, golden: Arrays | None = None, **manifest: Any) -> Bundle:
    """A copy of `bundle` with other golden arrays or another manifest, hashes and all in order."""
    files = {name: bundle.read(name) for name in bundle.manifest["files"]}
    if golden is not None:
        files["golden.safetensors"] = tensorfile.dumps(golden)
    rest = {key: value for key, value in bundle.manifest.items() if key not in ("format", "files")}
    return write_bundle(str(path / "changed"), {**rest, **manifest}, files)


def names(report: Report) -> list[str]:
    return [each.name for each in report.failed]


def test_every_codec_passes(any_bundle: Bundle) -> None:
    report = check_bundle(any_bundle)
    assert names(report) == [] and report.notes == []
    report.require()
    told = {each.name for each in report.checks}
    assert {"onnx.checker, front_grad.onnx", "rules of cpu", "deployed codes", "training codes", "gradient"} <= told
    assert {"deployed feature, decoded", "reference codes"} <= told
    assert (report.half_scores is not None) == (any_bundle.codec.codec_id == "sgq")


@pytest.mark.parametrize("codec", ["product", "slicing", "topk"])
@pytest.mark.parametrize("device", ["cpu", "jetson-nano", "jetson-thor", "atlas-200-dk"])
def test_baselines_pass_on_every_kind_of_board(tmp_path: Path, digits: Dataset, codec: str, device: str) -> None:
    config = {"groups": 4, "bits": 3} if codec == "product" else {"bits": 6}
    bundle = export(tmp_path / "bundle", digits, device, codec, **config)
    report = check_bundle(bundle)
    assert names(report) == [] and report.device == device and bundle.codec == feature_codec(codec, config)
    assert (report.half_scores is None) == (codec != "product")


@pytest.mark.parametrize("backend", ["onnxruntime", "reference"])
def test_static_batches_pass(nano: Bundle, atlas: Bundle, backend: str) -> None:
    for bundle in (nano, atlas):
        assert len(bundle.arrays("golden.safetensors")["image"]) == bundle.graphs["front"].inputs[0].shape[0] == 2
        report = check_bundle(bundle, backend)
        assert names(report) == [] and report.precision == "float32" and report.device == bundle.device["name"]
        (gradient,) = [each for each in report.checks if each.name == "gradient"]
        assert (
            gradient.value is not None and (gradient.value < 1e-4) and (gradient.value == 0 or backend == "reference")
        )


def test_a_batch_larger_than_the_golden_one_passes(tmp_path: Path, digits: Dataset) -> None:
    bundle = export(tmp_path / "bundle", digits, "jetson-nano", batch_size=8)
    assert len(bundle.arrays("golden.safetensors")["image"]) == 4
    assert names(check_bundle(bundle)) == []


def test_json(small_bundle: Bundle) -> None:
    told = json.loads(json.dumps(check_bundle(small_bundle).to_json()))
    assert told["passed"] is True and told["digest"] == small_bundle.digest and told["device"] == "cpu"
    (codes,) = [each for each in told["checks"] if each["name"] == "deployed codes"]
    assert codes["value"] == 1.0 and codes["limit"] == 0.999 and codes["passed"] is True
    assert set(told["half_scores"]) == {"codes", "flips", "change", "error", "error_float16"}


def test_other_codes_are_found(small_bundle: Bundle, tmp_path: Path) -> None:
    golden = small_bundle.arrays("golden.safetensors")
    golden["deployed.codes"] = golden["deployed.codes"] ^ 1
    report = check_bundle(changed(small_bundle, tmp_path, golden))
    assert names(report) == ["deployed codes", "deployed feature, decoded"]
    with pytest.raises(BackendError, match=r"deployed codes: got 0.00% equal, 1024 of 1024 differ, expected at least"):
        report.require()
    golden["deployed.codes"][:] = 99
    (tmp_path / "no codes").mkdir()
    assert "deployed codes" in names(check_bundle(changed(small_bundle, tmp_path / "no codes", golden)))


def test_one_wrong_gradient_is_found_and_named(small_bundle: Bundle, tmp_path: Path) -> None:
    golden = small_bundle.arrays("golden.safetensors")
    golden["gradient.features.4.weight"] *= np.float32(1.1)
    report = check_bundle(changed(small_bundle, tmp_path, golden))
    assert names(report) == ["gradient"] and "features.4.weight" in report.failed[0].got
    golden["gradient.features.4.weight"][0] = np.nan
    (tmp_path / "nan").mkdir()
    assert names(check_bundle(changed(small_bundle, tmp_path / "nan", golden))) == ["gradient"]


def test_an_engine_that_computes_nothing_fails(small_bundle: Bundle) -> None:
    assert {"deployed codes", "training codes", "gradient"} <= set(names(check_bundle(small_bundle, "null")))


def test_codes_that_cannot_be_decoded_are_told(tmp_path: Path, digits: Dataset) -> None:
    bundle = export(tmp_path / "bundle", digits, "cpu", "uniform")
    golden = bundle.arrays("golden.safetensors")
    golden["deployed.low"][:] = np.nan
    report = check_bundle(changed(bundle, tmp_path, golden))
    assert names(report) == ["deployed low", "deployed feature, decoded"] and "uniform range" in report.failed[1].got


def test_rules_of_the_board_are_checked_again(small_bundle: Bundle, nano: Bundle, tmp_path: Path) -> None:
    report = check_bundle(changed(small_bundle, tmp_path, device=profile("jetson-nano").to_json()))
    assert names(report) == ["rules of jetson-nano"]
    assert "rule opset" in report.failed[0].got and "rule static-shapes" in report.failed[0].got
    golden = nano.arrays("golden.safetensors")
    loud = {**golden, "image": golden["image"] * np.float32(1e4)}
    (tmp_path / "loud").mkdir()
    report = check_bundle(changed(nano, tmp_path / "loud", loud))
    assert "rules of jetson-nano" in names(report) and "fp16-range" in report.failed[0].got


def test_another_profile_than_the_installed_one_is_noted(small_bundle: Bundle, tmp_path: Path) -> None:
    mine = {**small_bundle.device, "title": "mine"}
    report = check_bundle(changed(small_bundle, tmp_path, device=mine), reference=False)
    assert names(report) == [] and "differs from the one in the bundle in title" in report.notes[0]
    (tmp_path / "own").mkdir()
    report = check_bundle(changed(small_bundle, tmp_path / "own", device={**mine, "name": "my-board"}), reference=False)
    assert report.device == "my-board" and "no built-in board" in report.notes[0]
    assert not any("reference" in each.name for each in report.checks)


@pytest.mark.parametrize(
    "device",
    [
        {"name": "cpu"},
        {**profile("cpu").to_json(), "target": []},
        {**profile("cpu").to_json(), "more": 1},
        {**profile("cpu").to_json(), "target": {**profile("cpu").target._asdict(), "opset": "15"}},
        {**profile("cpu").to_json(), "target": {**profile("cpu").target._asdict(), "rules": [1]}},
    ],
)
def test_a_manifest_without_a_board_is_refused(small_bundle: Bundle, tmp_path: Path, device: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="describes no board"):
        check_bundle(changed(small_bundle, tmp_path, device=device))


def test_incomplete_golden_data_is_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    golden = small_bundle.arrays("golden.safetensors")
    without = {name: array for name, array in golden.items() if name != "gradient.features.0.weight"}
    with pytest.raises(BundleError, match=r"lacks \['gradient.features.0.weight'\]"):
        check_bundle(changed(small_bundle, tmp_path, without))
    (tmp_path / "short").mkdir()
    short = {**golden, "training.codes": golden["training.codes"][:1]}
    with pytest.raises(BundleError, match=r"golden 'training.codes' is int32 \[1, 4, 8, 8\], the graph gives"):
        check_bundle(changed(small_bundle, tmp_path / "short", short))
    for i, image in enumerate((golden["image"][:0], golden["image"][0], np.float32(1).reshape(()))):
        (tmp_path / str(i)).mkdir()
        with pytest.raises(BundleError, match=r"golden images are .* expected at least one of \[1, 16, 16\]"):
            check_bundle(changed(small_bundle, tmp_path / str(i), {**golden, "image": image}))


@pytest.mark.parametrize("fault", ["codes", "crash"])
def test_the_reference_evaluator_is_heard(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    class Another(onnx.reference.ReferenceEvaluator):
        def run(self, *arguments: Any, **named: Any) -> Any:
            if fault == "crash":
                raise RuntimeError("no such operator")
            flipped: Any = super().run(*arguments, **named)
            return [codes ^ 1 for codes in flipped]

    monkeypatch.setattr(checking, "ReferenceEvaluator", Another)
    report = check_bundle(small_bundle)
    assert names(report) == ["reference codes" if fault == "codes" else "reference evaluator"]


def test_tolerances() -> None:
    codes = np.zeros(10000, dtype=np.int32)
    for wrong, passes in ((10, True), (11, False)):
        other = codes.copy()
        other[:wrong] = 1
        assert equal_codes("x", other, codes, 0.999, "").passed is passes
    assert equal_codes("x", np.ones(1, dtype=np.int32), np.zeros(1, dtype=np.int32), 0.999, "").passed
    assert not equal_codes("x", np.ones(1, dtype=np.float32), np.zeros(1, dtype=np.float32), 0.999, "").passed
    assert not small_error("x", float("nan"), 1.0, "").passed
    large, none = np.ones(100, dtype=np.float32), np.zeros(4, dtype=np.float32)
    # A gradient that vanishes may be all rounding; one that is small may not be all wrong.
    assert worst_gradient("x", {"a": large, "b": none + 1e-6}, {"a": large, "b": none}, "").passed
    assert not worst_gradient("x", {"a": large, "b": none}, {"a": large, "b": none + 1e-3}, "").passed
    assert worst_gradient("x", {"b": none}, {"b": none}, "").passed


def score_in_half(bundle: Bundle, feature: np.ndarray) -> np.ndarray:
    """Codes of `feature` (n,C,h,w) as numpy's float16 gives them, sums in float32; (n,G,h,w)."""
    codec, tables = bundle.codec, bundle.tables()
    assert isinstance(codec, SGQ)
    separate = bundle.device["target"]["scores"] == "matmul"
    n, _, h, w = feature.shape
    codes = []
    for points, book in zip(codec.stripes(feature), codec.books(tables["codebook"]), strict=True):
        product = -points.astype(np.float16).astype(np.float32) @ book.astype(np.float16).astype(np.float32).T
        if separate:
            product = product.astype(np.float16).astype(np.float32)
        bias = ((book**2).sum(axis=1) / np.float32(2)).astype(np.float16).astype(np.float32)
        codes.append((product + bias).astype(np.float16).argmin(axis=1))
    return np.stack(codes).reshape(codec.groups, n, h, w).transpose(1, 0, 2, 3)


@pytest.mark.parametrize("board", ["nano", "atlas"])
def test_half_scores_are_those_of_numpy(board: str, nano: Bundle, atlas: Bundle) -> None:
    bundle = {"nano": nano, "atlas": atlas}[board]
    spec, tables = bundle.graphs["front"], bundle.tables()
    model = onnx.load_from_string(bundle.read(spec.file))
    scored = round_scores(model)
    assert scored is not None
    onnx.checker.check_model(model, full_check=True)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(scored))
    golden = bundle.arrays("golden.safetensors")
    feeds = {"image": golden["image"], **{s.name: bundle.codec.table_feeds(tables)[s.name] for s in spec.held}}
    found: Any = onnx.reference.ReferenceEvaluator(model).run(["codes", scored], feeds)
    half, feature = found
    wide = golden["deployed.codes"]
    np.testing.assert_array_equal(bundle.codec.quantize(feature, tables)["codes"], wide)
    assert (half == score_in_half(bundle, feature)).mean() >= 0.999
    result = simulate(bundle.read(spec.file), spec, bundle.codec, tables, bundle.feature_shape, golden["image"])
    assert result is not None and result.codes == wide.size
    assert abs(result.flips - int((half != wide).sum())) <= 1
    decoded = bundle.codec.dequantize({"codes": wide}, tables)
    error = float(np.linalg.norm(decoded - feature) / np.linalg.norm(feature))
    assert result.error == pytest.approx(error, rel=1e-4) and result.error_float16 == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("board", ["nano", "atlas"])
def test_half_scores_flip_codes_where_codewords_are_close(board: str, nano: Bundle, atlas: Bundle) -> None:
    """Codewords that differ by less than float16 resolves: about half of the codes must flip, and little moves."""
    bundle = {"nano": nano, "atlas": atlas}[board]
    spec, rng = bundle.graphs["front"], np.random.default_rng(0)
    tables = bundle.tables()
    tables["codebook"] = (1 + 1e-4 * rng.standard_normal(tables["codebook"].shape)).astype(np.float32)
    feeds = bundle.codec.table_feeds(tables)
    model = onnx.load_from_string(bundle.read(spec.file))
    for tensor in model.graph.initializer:
        if tensor.name in feeds:
            tensor.CopyFrom(onnx.numpy_helper.from_array(feeds[tensor.name], tensor.name))
    image = bundle.arrays("golden.safetensors")["image"]
    result = simulate(model.SerializeToString(), spec, bundle.codec, tables, bundle.feature_shape, image)
    assert result is not None and result.flips > result.codes / 4 and 0 < result.change < 1e-2


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[3] / "bench")
        return importlib.import_module("matrix")


def test_matrix(matrix: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = registry.load("digits", None, 200)
    passed = matrix.cell("allcnn", "jetson-nano", "1,28,28", dataset)
    assert passed["result"] == "passed", passed["reason"]
    assert passed["checks"]["reference codes"] >= 0.999
    assert passed["checks"]["rules of jetson-nano"] == 0 and set(passed["sha256"]) > {"front.onnx"}
    monkeypatch.setitem(matrix.CODEC, "groups", 7)
    refused = matrix.cell("allcnn", "cpu", "1,28,28", dataset)
    assert refused["result"] == "refused" and refused["error"] == "UsageError" and "7 groups" in refused["reason"]
    table = matrix.matrix([passed, refused])
    assert "2 cells: 1 passed, 1 refused, 0 failed" in table and f"[1] {refused['reason']}" in table
    assert json.loads(json.dumps([passed, refused])) == [passed, refused]

"""A front half whose deployed engine is TensorRT: what learns where, and what is noticed when an engine goes wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import BackendError
from edgekit.export.build import build_bundle
from edgekit.export.parity.check import check_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.optim import optimizer
from tests.conftest import SmallNet
from tests.device.tensorrt.board import Board, Maker


def export(folder: Path, digits: Dataset, codec: str, **config: int) -> Bundle:
    """SmallNet for the Jetson Nano: static batch, float16, codebooks as initialisers."""
    torch.manual_seed(0)
    return build_bundle(
        str(folder / "bundle"),
        Network(SmallNet(), "small", "features"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec(codec, config)),
        BoardSettings("jetson-nano", "batch"),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    return export(tmp_path_factory.mktemp("nano"), digits, "sgq", groups=4, bits=4)


@pytest.fixture
def nano(make: Maker) -> Board:
    return make("8.2")


def step(front: FrontHalf, image: np.ndarray) -> None:
    """A step that moves codes."""
    forward = front.forward(image)
    gradients = front.backward(forward, np.ones_like(forward.feature))
    front.learn(gradients, optimizer("sgd", {"momentum": 0.0, "weight_decay": 0.0}), 1e-3)


def test_what_learns_runs_in_onnx_runtime(nano: Board, bundle: Bundle) -> None:
    front = FrontHalf(bundle, "tensorrt", 1)
    twin = FrontHalf(bundle, "onnxruntime", 1)
    assert (front._deployed.backend_id, front.passes.backend_id) == ("tensorrt", "onnxruntime")
    image = bundle.arrays("golden.safetensors")["image"][:32]
    before = front.encode(image)["codes"].copy()
    assert nano.trt.count["refit"] == 1 and front.refresh_s > 0
    for half in (front, twin):
        step(half, image)
    after = front.encode(image)["codes"]
    assert (after != before).mean() > 0.01
    assert (after == twin.encode(image)["codes"]).mean() > 0.99
    # Nothing changed: no refit.
    front.encode(image)
    assert nano.trt.count["refit"] == 2
    front.close()
    twin.close()


def test_a_refit_without_effect_is_noticed(nano: Board, bundle: Bundle, monkeypatch: Any) -> None:
    front = FrontHalf(bundle, "tensorrt", 1)
    image = bundle.arrays("golden.safetensors")["image"]
    monkeypatch.setattr(nano.trt.Refitter, "refit_cuda_engine", lambda self: True)
    front.encode(image)  # these weights are the engine's own
    step(front, image)
    with pytest.raises(BackendError, match=r"reproduces .* codes that onnxruntime computes with the new weights"):
        front.encode(image)
    front.close()


def test_an_engine_that_computes_something_else_is_refused(make: Maker, bundle: Bundle, monkeypatch: Any) -> None:
    board = make("8.2")
    run = board.trt.IExecutionContext.execute_async_v2

    def swapped(self: Any, bindings: list[int], stream_handle: int) -> bool:
        done: bool = run(self, bindings, stream_handle)
        board.cuda.enqueue(stream_handle, lambda: board.cuda.at(bindings[-1], 4 * 32 * 4).fill(0))
        return done

    monkeypatch.setattr(board.trt.IExecutionContext, "execute_async_v2", swapped)
    with pytest.raises(BackendError, match=r"tensorrt reproduces .* of the golden codes 'codes', expected 99%"):
        FrontHalf(bundle, "tensorrt", 1)


@pytest.mark.parametrize(
    ("codec", "config"), [("sgq", {"groups": 4, "bits": 8}), ("uniform", {"bits": 4}), ("raw", {})]
)
def test_check_reports_the_engine(
    nano: Board, tmp_path: Path, digits: Dataset, codec: str, config: dict[str, int]
) -> None:
    """The emulator rounds weights and results to float16, as this board does."""
    bundle = export(tmp_path, digits, codec, **config)
    report = check_bundle(bundle, "tensorrt", reference=False)
    assert report.precision == "float16"
    assert [check for check in report.checks if not check.passed] == []
    FrontHalf(bundle, "tensorrt", 1).close()

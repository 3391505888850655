"""The graphs that learn on a provider with memory of its own, which is a fake here; and what is said without one."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgekit.bundle import Bundle
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.errors import BackendError, BundleError, ExportError, UnknownName, UsageError
from edgekit.export.build import build_bundle
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.export.targets import learning_rules
from edgekit.runtime.doctor import examine
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.local_loss import one_hot
from edgekit.runtime.optim import optimizer
from edgekit.runtime.passes import check_offered
from tests.runtime.fake_onnxruntime import GPU, HELD, FakeOnnxRuntime, OrtValue


def network() -> nn.Sequential:
    """16x16 grey image -> 16x8x8 at "5", with batch norms and a depthwise convolution -> 10 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """For CUDA, with batch norm in training mode."""
    return build_bundle(
        str(tmp_path_factory.mktemp("cuda") / "bundle"),
        Network(network(), "depthwise", "5"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec("sgq", {"groups": 4, "bits": 4})),
        BoardSettings("cpu", "batch", provider="cuda"),
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    return replaced(monkeypatch)


def replaced(monkeypatch: pytest.MonkeyPatch, **how: Any) -> FakeOnnxRuntime:
    fake = FakeOnnxRuntime(**how)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake


def step(front: FrontHalf, rng: np.random.Generator) -> tuple[Any, dict[str, np.ndarray]]:
    """A training step on 6 images: the forward pass and the gradients."""
    forward = front.forward(rng.standard_normal((6, 1, 16, 16), dtype=np.float32))
    gradients = front.backward(forward, rng.standard_normal(forward.feature.shape, dtype=np.float32))
    front.learn(gradients, optimizer("sgd", {"momentum": 0.9, "weight_decay": 0.0}), 0.01)
    return forward, gradients


def test_the_fake_has_the_names_and_parameters_of_the_real_module() -> None:
    for real, fake in HELD:
        try:
            parameters = inspect.signature(real).parameters
        except ValueError:  # a function of the C extension: its documentation begins with the signature
            line = (real.__doc__ or "").splitlines()[0]
            names = [name for name in re.findall(r"(\w+): ", line[: line.index(" ->")]) if name != "self"]
            assert len(names) == len(inspect.signature(fake).parameters) - (
                "self" in inspect.signature(fake).parameters
            )
            continue
        for name, parameter in inspect.signature(fake).parameters.items():
            if name not in ("self", "run_options"):
                assert name in parameters, f"{real.__qualname__} has no {name}"
                assert parameter.default in (inspect.Parameter.empty, parameters[name].default)
    for name in ("intra_op_num_threads", "inter_op_num_threads", "execution_mode", "log_severity_level"):
        assert hasattr(onnxruntime.SessionOptions(), name)


def test_only_codes_feature_statistics_and_gradients_leave_the_device(
    bundle: Bundle, fake: FakeOnnxRuntime, rng: np.random.Generator
) -> None:
    front = FrontHalf(bundle, "onnxruntime", 1)
    assert front.passes.provider == ("cuda", "the bundle was exported for it", "cuda")
    assert [session.provider for session in fake.sessions].count(GPU) == 2
    step(front, rng)
    fake.counts.update(up=0, down=0)
    forward, gradients = step(front, rng)
    statistics = sum(4 * 2 * front.state[norm["running_mean"]].size for norm in bundle.manifest["batch_norms"])
    weights = sum(array.nbytes for array in gradients.values())
    codes = sum(array.nbytes for array in forward.codes.values())
    assert fake.counts["down"] == codes + forward.feature.nbytes + statistics + weights
    # Up: the image and the gradient at the cut, and the weights once for both graphs; the deployed graph is not used.
    held = {spec.name: spec for key in ("front_train", "front_grad") for spec in bundle.graphs[key].held}
    sent = sum(front.state[name].nbytes for name in held if name in front.state)
    assert fake.counts["up"] == forward.image.nbytes + forward.feature.nbytes + sent


def test_what_is_learned_is_what_the_cpu_learns(bundle: Bundle, fake: FakeOnnxRuntime) -> None:
    cuda, cpu = (FrontHalf(bundle, "onnxruntime", 1, provider) for provider in ("cuda", "cpu"))
    for front in (cuda, cpu):
        for seed in range(3):
            step(front, np.random.default_rng(seed))
    for name, array in cpu.state.items():
        np.testing.assert_array_equal(cuda.state[name], array)
    image = bundle.arrays("golden.safetensors")["image"]
    np.testing.assert_array_equal(cuda.encode(image)["codes"], cpu.encode(image)["codes"])


def test_two_batches_in_flight_do_not_disturb_each_other(bundle: Bundle, fake: FakeOnnxRuntime, rng: Any) -> None:
    front = FrontHalf(bundle, "onnxruntime", 1)
    images = rng.standard_normal((2, 6, 1, 16, 16), dtype=np.float32)
    first = front.forward(images[0])
    gradient = rng.standard_normal(first.feature.shape, dtype=np.float32)
    alone = front.backward(first, gradient)
    first = front.forward(images[0])
    front.forward(images[1])
    for name, array in front.backward(first, gradient).items():
        np.testing.assert_array_equal(array, alone[name])


def test_the_local_loss_runs_where_the_feature_is(
    bundle: Bundle, fake: FakeOnnxRuntime, rng: np.random.Generator
) -> None:
    fronts = [FrontHalf(bundle, "onnxruntime", 1, provider) for provider in ("cuda", "cpu")]
    image = rng.standard_normal((6, 1, 16, 16), dtype=np.float32)
    labels, given = one_hot(np.arange(6), 10), []
    for front in fronts:
        # On cuda it is held to the golden data. Opened again it stays as it is.
        front.open_local()
        front.open_local()
        forward = front.forward(image)
        fake.counts.update(up=0, down=0)
        given.append(front.local(forward, labels))
        if front is fronts[0]:
            assert fake.counts["up"] == labels.nbytes, "feature and weights are there already"
    cuda, cpu = given
    assert cuda.loss == cpu.loss and list(cuda.gradients) == list(bundle.head)
    np.testing.assert_array_equal(cuda.gradient, cpu.gradient)
    for name, gradient in cuda.gradients.items():
        np.testing.assert_array_equal(gradient, cpu.gradients[name])


def test_a_provider_that_is_not_installed_says_what_to_install(bundle: Bundle) -> None:
    words = r"provider 'cuda' cannot run here: .* offers .*cpu, not cuda: pip install onnxruntime-gpu"
    with pytest.raises(BackendError, match=words):
        FrontHalf(bundle, "onnxruntime", 1, "cuda")
    with pytest.raises(BackendError, match=words):
        check_offered("cuda", "onnxruntime")
    front = FrontHalf(bundle, "onnxruntime", 1)
    name, reason, wanted = front.passes.provider
    assert (name, wanted) == ("cpu", "cuda") and "not cuda: pip install onnxruntime-gpu" in reason


def test_a_provider_that_does_not_start_is_no_silent_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, starts=False)
    with pytest.raises(
        BackendError, match=r"front_train.onnx .*'cuda' does not start here, .*took CPUExecutionProvider"
    ):
        FrontHalf(bundle, "onnxruntime", 1)


def test_a_node_without_kernel_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, without_kernel=True)
    with pytest.raises(BackendError, match=r"provider 'cuda' has no kernel for some nodes .*--provider cpu"):
        FrontHalf(bundle, "onnxruntime", 1)


def test_an_old_version_does_not_tell_and_that_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, version="1.11.0")
    assert "1.11.0 does not say what it runs on the CPU" in FrontHalf(bundle, "onnxruntime", 1).passes.provider.reason


@pytest.mark.parametrize(("output", "words"), [("codes", "golden codes"), ("gradient", "golden gradients")])
def test_a_provider_that_computes_something_else_is_refused(
    bundle: Bundle, fake: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch, output: str, words: str
) -> None:
    numpy = OrtValue.numpy

    def off(self: OrtValue) -> np.ndarray:
        return numpy(self) * 2 if self.name.startswith(output) and self.device_name() == "cuda" else numpy(self)

    monkeypatch.setattr(OrtValue, "numpy", off)
    with pytest.raises(BackendError, match=rf"provider 'cuda' reproduces .*{words}.*something else.*--provider cpu"):
        FrontHalf(bundle, "onnxruntime", 1)


def test_a_bundle_in_the_form_of_the_cpu_is_not_run_elsewhere(small_bundle: Bundle, fake: FakeOnnxRuntime) -> None:
    with pytest.raises(UsageError, match=r"exported for provider cpu.*export it again with --provider cuda"):
        FrontHalf(small_bundle, "onnxruntime", 1, "cuda")
    assert FrontHalf(small_bundle, "onnxruntime", 1).passes.provider.name == "cpu"
    with pytest.raises(UnknownName, match=r"unknown provider 'cudda': did you mean cuda"):
        FrontHalf(small_bundle, "onnxruntime", 1, "cudda")


def test_what_no_provider_has_is_exported_for_the_cpu_and_said(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_rules, "OPERATORS", tuple(set(learning_rules.OPERATORS) - {"Relu"}))

    def export(provider: str) -> Bundle:
        return build_bundle(
            str(tmp_path / "bundle"),
            Network(network(), "depthwise", "5"),
            CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
            Coding(feature_codec("sgq", {"groups": 4, "bits": 4})),
            BoardSettings("jetson-orin-nano", "batch", provider=provider),
        )

    with pytest.raises(
        ExportError, match=r"provider cuda does not take this graph:\n  Relu '.*' of layer '2', rule oper"
    ):
        export("cuda")
    made = export("auto")
    assert (made.provider, made.wanted_provider) == ("cpu", "cuda")
    front = FrontHalf(made, "onnxruntime", 1)
    assert (front.passes.provider.name, front.passes.provider.wanted) == ("cpu", "cuda")
    assert "Relu" in front.passes.provider.reason and "of layer '2'" in front.passes.provider.reason
    (told,) = (each for each in examine(made, made.device, None, "onnxruntime") if each.name == "provider")
    assert (told.state, told.text) == ("warning", "learning runs on cpu, not on cuda as planned")
    assert "Relu" in str(told.advice)


def test_backends_without_providers_say_so(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="providers are ONNX Runtime's, and here reference runs the graphs that learn"):
        FrontHalf(bundle, "reference", 1, "cuda")
    assert FrontHalf(bundle, "reference", 1).passes.provider.name == "cpu"


def test_golden_data_that_lack_what_a_provider_is_checked_with(
    bundle: Bundle, fake: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arrays = Bundle.arrays

    def without(self: Bundle, name: str) -> dict[str, np.ndarray]:
        return {key: array for key, array in arrays(self, name).items() if key != "gradient"}

    monkeypatch.setattr(Bundle, "arrays", without)
    with pytest.raises(BundleError, match=r"lacks \['gradient'\]"):
        FrontHalf(bundle, "onnxruntime", 1)

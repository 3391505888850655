"""What several test folders share: a small network and the bundle it exports to; and which files start first."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.bundle import Bundle
from edgekit.codecs.entropy import kernels
from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.data.base import Dataset
from edgekit.errors import BackendError
from edgekit.export.build import build_bundle
from edgekit.export.settings import CalibrationImages, Coding, Network

TESTS = Path(__file__).parent
#: An app of Flower's that tests run in its environment: no tests of its own, and it needs Flower.
collect_ignore = ["federate/flower/stock"]
#: Files and folders that take more than about 5 s, the longest first. `make fast` leaves them out.
SLOW = (
    "e2e/test_line.py", "e2e/test_ranks.py", "runtime/test_resume.py", "e2e/test_resume.py", "e2e/test_bad_devices.py",
    "export/test_graphs.py", "e2e/test_own_network.py", "e2e/test_arm64.py", "e2e/test_measure.py",
    "e2e/test_python36.py", "e2e/test_deploy.py", "test_bench.py", "device/tensorrt/test_training.py",
    "export/rate/test_choose.py", "e2e/test_deploy_refused.py", "cli/test_rate.py", "export/test_build_norms.py",
    "export/models/test_registry.py", "device/ascend/test_training.py", "device/ascend/test_backend.py",
    "runtime/test_session.py", "runtime/test_codebooks.py", "runtime/test_loop.py", "test_python_page.py",
    "test_api.py", "report/test_page.py", "export/parity/test_check.py", "runtime/test_doctor.py",
    "report/test_browser.py", "server/ranks", "codecs/entropy/native/test_build.py", "device/tensorrt/test_bindings.py",
    "runtime/test_transport.py", "line/test_channel.py", "server/test_streams.py",
    "deploy/test_package.py", "test_docs.py", "test_time_to_accuracy.py",
    "export/lowerings/test_lowerings.py", "export/plan/test_cuts.py", "export/test_own_network.py", "e2e",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of SLOW, and starts with them: a long file that a worker took last would be waited for alone."""
    gone = [name for name in SLOW if not (TESTS / name).exists()]
    if gone:
        raise pytest.UsageError(f"tests/conftest.py: SLOW names {', '.join(gone)}, not there: name what it is now")

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(TESTS).as_posix() if item.path.is_relative_to(TESTS) else ""
        return next((number for number, start in enumerate(SLOW) if name.startswith(start)), len(SLOW))

    for item in items:
        if place(item) < len(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=place)


class SmallNet(nn.Module):
    """16x16 grey image -> 16x8x8 at "features" -> 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.features(x))
        return y


class DepthwiseNet(nn.Sequential):
    """16x16 grey image -> 16x8x8 at "6", the last of a depthwise convolution, its norm and ReLU -> 10 classes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip


@pytest.fixture(scope="session")
def depthwise_net() -> type[nn.Module]:
    """Makes networks as boards have them; cut at "6"."""
    return DepthwiseNet


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The digits, 16x16."""
    return images.fit(registry.load("digits", None), (1, 16, 16))


def export_small(path: Path, digits: Dataset, codec: str, **config: int) -> Bundle:
    torch.manual_seed(0)
    return build_bundle(
        str(path),
        Network(SmallNet(), "small", "features"),
        CalibrationImages(digits.train_images[:64], digits.mean, digits.std, 10),
        Coding(feature_codec(codec, config)),
    )


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """SmallNet coded by sgq, 4 groups of 4 channels, 4 bits. Not to be written to."""
    return export_small(tmp_path_factory.mktemp("small") / "bundle", digits, "sgq", groups=4, bits=4)


@pytest.fixture(scope="session", params=["raw", "uniform", "sgq"])
def any_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Bundle:
    """SmallNet, once per feature codec."""
    config = {"groups": 4} if request.param == "sgq" else {}
    path = tmp_path_factory.mktemp(str(request.param)) / "bundle"
    return export_small(path, digits, str(request.param), **config)


@pytest.fixture(scope="module", params=kernels.NAMES)
def coder(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything of a module once with the compiled kernels of entropy coding, and once with those of numpy."""
    try:
        chosen = kernels.choose(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    with kernels.using(chosen.name):
        yield chosen.name


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)

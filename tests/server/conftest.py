"""A small back half, exported as bundles hold it: two archives without weights, and the weights."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import tensorfile
from edgekit.bundle import GRAPHS, write_bundle
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.features.raw import Raw
from edgekit.export.program import back_program
from edgekit.server.calibrate import calibrator
from edgekit.server.listen import Listener, serve
from edgekit.server.local_loss import WITHOUT, LocalLoss
from edgekit.server.noise_filling import NoiseFilling
from edgekit.server.service import Service
from edgekit.server.setup import Setup, setup_from_bundle
from edgekit.server.train import BackHalf, OptimizerConfig
from edgekit.tensors import TensorSpec
from tests.server.lines import Line
from tests.server.talk import CODEC, CPU, SGD, TABLES

FEATURE = (8, 4, 4)
CLASSES = 3


class Back(nn.Module):
    """Feature (n,8,4,4) -> logits (n,3); its batch norm sees 1x1 maps, so it trains on two images or more."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, stride=4, bias=False, padding=1))
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(6, CLASSES)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.dropout(torch.flatten(torch.relu(self.norm(self.body(feature))), 1)))
        return logits


def archive(module: nn.Module, training: bool, bare: bool = True) -> bytes:
    """`module` as a bundle holds it; not `bare`: with sample inputs, weights and traces of this machine's folders."""
    if bare:
        return back_program(module.train(training), torch.zeros(4, *FEATURE))
    batch = torch.export.Dim("batch", min=2 if training else 1, max=1 << 16)
    program = torch.export.export(module.train(training), (torch.zeros(2, *FEATURE),), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


Archives = tuple[bytes, bytes, dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def make_back() -> Callable[..., nn.Module]:
    torch.set_num_threads(1)
    return Back


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., bytes]:
    return archive


@pytest.fixture(scope="session")
def archives() -> Archives:
    """Training archive, evaluation archive, state, without dropout."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = Back()
    state = {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}
    return archive(module, True), archive(module, False), state


@pytest.fixture
def make(tmp_path: Path, archives: Any) -> Callable[..., Service]:
    """A service from a bundle on disk: codec sgq, policy "stochastic", schedule "constant"."""

    def service(
        codec: FeatureCodec = CODEC,
        tables: Arrays = TABLES,
        policy: str = "stochastic",
        schedule: str = "constant",
        classes: int = 3,
        noise: NoiseFilling | None = None,
        local_loss: LocalLoss = WITHOUT,
    ) -> Service:
        graph: dict[str, list[object]] = {key: [] for key in ("inputs", "held", "constants")}
        graph["outputs"] = [TensorSpec("feature", "float32", (-1, 8, 4, 4)).to_json()]
        manifest = {
            "model": {"name": "tiny", "cut": "body", "input": [1, 8, 8], "classes": classes},
            "feature": [8, 4, 4],
            "codec": {"id": codec.codec_id, "config": codec.config},
            "graphs": {name: {"file": f"{name}.onnx", "ordered": [], **graph} for name in GRAPHS},
            "normalise": {"mean": [0.0], "std": [1.0]},
            "feature_tensor": "feature",
            "after_relu": True,
            "batch_norms": [],
            "device": {"name": "cpu"},
            "norm": "batch",
            "folds": [],
        }
        files = {
            "back_train.pt2": archives[0],
            "back_eval.pt2": archives[1],
            "back.safetensors": tensorfile.dumps(archives[2]),
            "tables.safetensors": tensorfile.dumps(tables),
        }
        bundle = write_bundle(str(tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"), manifest, files)
        return Service(setup_from_bundle(bundle, CPU, calibrator(policy, 0), SGD, schedule, noise, local_loss))

    return service


@pytest.fixture
def service(archives: Archives) -> Service:
    """One of the codec raw, for `tests.server.lines`."""
    optimizer = OptimizerConfig()
    train, evaluation, state = archives
    back = BackHalf.from_programs(train, evaluation, state, torch.device("cpu"), optimizer)
    return Service(Setup("b", Raw(), {}, (8, 4, 4), 3, back, calibrator("none", 0), optimizer, "constant"))


@pytest.fixture
def listener(service: Service) -> Iterator[Listener]:
    """For two devices at a time."""
    listener = serve(service, "127.0.0.1:0", 2)
    yield listener
    listener.stop(0)


@pytest.fixture
def line(listener: Listener) -> Iterator[Callable[[], Line]]:
    lines: list[Line] = []

    def open_line() -> Line:
        lines.append(Line(listener.port))
        return lines[-1]

    yield open_line
    for opened in lines:
        opened.close()

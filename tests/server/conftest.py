"""A small back half, exported as bundles hold it: two archives without weights, and the weights."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.export.program import back_program

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

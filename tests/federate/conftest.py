"""A network and images that learn in a blink."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from edgekit.data.base import Dataset
from edgekit.federate.data import Data


def small() -> nn.Module:
    """Two convolutions with batch norm and a linear layer, for grey images; drawn from one seed."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(48, 10),
    )  # fmt: skip


@pytest.fixture
def network() -> Callable[[], nn.Module]:
    return small


@pytest.fixture(scope="session")
def few(digits: Dataset) -> Dataset:
    """200 digits to learn, 100 to test."""
    return digits._replace(
        train_images=digits.train_images[:200], train_labels=digits.train_labels[:200],
        test_images=digits.test_images[:100], test_labels=digits.test_labels[:100],
    )  # fmt: skip


@pytest.fixture
def data(few: Dataset) -> Data:
    return Data(few.train_images, few.train_labels, few)

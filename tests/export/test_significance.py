"""How much each channel matters to the loss: measured where it is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.errors import UnknownName, UsageError
from edgekit.export.build import build_bundle
from edgekit.export.settings import CalibrationImages, Coding, Network
from edgekit.export.significance import SIGNIFICANCE, Gate, gradient_energy, significance

CHANNELS, CLASSES = 16, 4
#: Channels that the back half looks at.
READ = np.arange(0, CHANNELS, 2)


class Back(nn.Module):
    """Pools the channels in READ and classifies; the others do not reach the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(CHANNELS, CLASSES)
        with torch.no_grad():
            self.head.weight.zero_()
            for k in range(CLASSES):
                self.head.weight[k, READ[k::CLASSES]] = 3.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return y


def labelled(n: int = 128) -> tuple[torch.Tensor, np.ndarray]:
    """Features (n,16,3,3) whose channels in READ tell the class, and the classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, n)
    z = np.abs(rng.normal(size=(n, CHANNELS, 3, 3)))
    for k in range(CLASSES):
        z[:, READ[k::CLASSES]] += 0.5 * (labels == k)[:, None, None, None]
    return torch.from_numpy(z.astype(np.float32)), labels


@pytest.mark.parametrize("measure", SIGNIFICANCE)
def test_what_the_loss_depends_on_is_significant(measure: str) -> None:
    features, labels = labelled()
    got = significance(measure, Back(), features, labels, seed=0)
    assert got.shape == (CHANNELS,) and got.dtype == np.float32 and (got >= 0).all()
    others = np.setdiff1d(np.arange(CHANNELS), READ)
    assert got[READ].min() > got[others].max()


def test_gradient_energy_by_hand() -> None:
    features, labels = labelled(70)  # more than go through at once
    back = Back()
    probability = torch.softmax(back(features), dim=1).detach()
    error = probability - nn.functional.one_hot(torch.from_numpy(labels), CLASSES)
    gradient = error @ back.head.weight.detach() / 9  # the same at each of the 9 positions
    got = gradient_energy(back, features, torch.from_numpy(labels))
    np.testing.assert_allclose(got, (gradient**2).mean(dim=0), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("measure", SIGNIFICANCE)
def test_nothing_is_left_behind(measure: str) -> None:
    features, labels = labelled(33)
    back = nn.Sequential(nn.BatchNorm2d(CHANNELS), Back(), nn.Dropout()).train()
    state = {name: value.clone() for name, value in back.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = significance(measure, back, features, labels, seed=0)
    assert torch.equal(torch.rand(1), expected)  # the caller's generator
    np.testing.assert_array_equal(first, significance(measure, back, features, labels, seed=0))
    assert back.training and all(torch.equal(value, state[name]) for name, value in back.state_dict().items())
    assert all(weight.grad is None for weight in back.parameters())


def test_a_gate_starts_half_open() -> None:
    features, _ = labelled(5)
    gates = Gate(CHANNELS)(features)
    assert gates.shape == (5, CHANNELS)
    np.testing.assert_allclose(gates.detach(), 0.5, atol=0.2)


@pytest.mark.parametrize("labels", [None, np.zeros(3, np.int64)])
def test_labels_are_asked_for(labels: np.ndarray | None) -> None:
    with pytest.raises(UsageError, match=r"measured on the loss: [03] labels for 8 calibration images"):
        significance("gradient", Back(), labelled(8)[0], labels, seed=0)


def test_an_unknown_measure_offers_near_names() -> None:
    with pytest.raises(UnknownName, match="unknown significance 'gradients': did you mean gradient"):
        significance("gradients", Back(), *labelled(8), seed=0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, CHANNELS, 3), nn.ReLU())
        self.back = Back()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.back(self.features(x))
        return y


@pytest.mark.parametrize("measure", [None, *SIGNIFICANCE])
def test_a_bundle_is_grouped_and_weighted_by_it(measure: str | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 1, 8, 8), dtype=np.uint8), rng.integers(0, CLASSES, 48)
    codec = feature_codec("sgq", {"groups": 2, "bits": 3, "grouping": "significance", "weighted": True})

    def build(path: str, labels: np.ndarray | None) -> dict[str, np.ndarray]:
        return build_bundle(
            path,
            Network(Net(), "net", "features.1"),
            CalibrationImages(images, (0.5,), (0.25,), CLASSES, labels),
            Coding(codec, measure),
        ).tables()

    tables = build(str(tmp_path / "bundle"), labels)
    assert set(tables) == {"codebook", "order", "significance"}
    assert set(tables["order"][:8]) == set(READ)
    assert (np.diff(tables["significance"][tables["order"]]) <= 0).all()
    with pytest.raises(UsageError, match="0 labels for 48"):
        build(str(tmp_path / "other"), None)

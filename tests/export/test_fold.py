"""Batch norms folded into convolutions: the same outputs, in PyTorch and in numpy, and the same names."""

import copy

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgekit.errors import ExportError, ShapeError
from edgekit.export.fold import fold_norms, settle_norms, state_of
from edgekit.folding import Fold, fold, fold_from_json


class Branches(nn.Module):
    """A convolution with a batch norm, one whose output is used twice, one called twice, and lone batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, eps=1e-3))
        self.used_twice = nn.Conv2d(8, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.grouped_norm = nn.BatchNorm2d(8)
        self.called_twice = nn.Conv2d(8, 8, 1)
        self.after = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        z = self.used_twice(y)
        y = torch.relu(self.norm(z)) + z
        y = self.grouped_norm(self.grouped(y))
        y = self.after(self.called_twice(self.called_twice(y)))
        out: torch.Tensor = self.up_norm(self.up(y))
        return out


def trained(module: nn.Module) -> nn.Module:
    """With weights and statistics of a network in use."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.uniform_(norm.bias, -1.0, 1.0)
            nn.init.uniform_(norm.running_mean, -1.0, 1.0)
            nn.init.uniform_(norm.running_var, 0.2, 3.0)
    return module.eval()


def test_folded_network_computes_the_same() -> None:
    front = trained(Branches())
    folded, folds = fold_norms(front)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert [each.into for each in folds] == ["first.0", "first.1", "norm", "grouped", "after", "up_norm"]
    x = torch.randn(4, 3, 9, 10)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), front(x), rtol=1e-4, atol=1e-5)


def test_front_itself_is_unchanged() -> None:
    front = fx.symbolic_trace(trained(Branches()))
    before = copy.deepcopy(front.state_dict())
    fold_norms(front)
    assert before.keys() == front.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in front.state_dict().items())


def test_new_weights_fold_without_the_network() -> None:
    front = trained(Branches())
    _, folds = fold_norms(front)
    for parameter in front.parameters():
        nn.init.normal_(parameter)
    expected = state_of(fold_norms(front)[0])
    new = fold(state_of(front), [fold_from_json(each._asdict()) for each in folds])
    assert set(new) <= set(expected)
    for name, value in new.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[name])


def test_norm_without_statistics_is_refused() -> None:
    for norm in (nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)):
        with pytest.raises(ExportError, match=r"layer '1': batch norm needs affine=True and track_running_stats=True"):
            fold_norms(nn.Sequential(nn.Conv2d(3, 4, 1), norm))


def test_statistics_that_do_not_fit_are_refused() -> None:
    front = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    state = dict(state_of(front), **{"1.running_var": np.ones(5, dtype=np.float32)})
    with pytest.raises(ShapeError, match=r"'1.running_var' is float32 \[5\], expected float32 \[4\]"):
        fold(state, [Fold("0", "1", 1e-5)])


def test_fresh_norms_take_the_statistics_of_the_images() -> None:
    torch.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    images = torch.randn(64, 3, 12, 12)
    settle_norms(front, images)
    with torch.no_grad():
        y = front.eval()(images)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    assert front[1].momentum == 0.1


def test_trained_norms_keep_their_statistics() -> None:
    front = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    mean = front.get_buffer("1.running_mean")
    before = mean.clone()
    settle_norms(front, torch.randn(8, 3, 12, 12))
    assert torch.equal(before, mean)


def test_what_does_not_train_does_not_train_when_folded() -> None:
    front = trained(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))
    front.requires_grad_(False)
    assert not any(weight.requires_grad for weight in fold_norms(front)[0].parameters())

import pytest
import torch
from torch import nn

from edgekit.errors import ExportError, UnknownName
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import cut_points, split


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.join = nn.ReLU()
        self.unused = nn.ReLU()
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        z: torch.Tensor = self.head(self.join(self.second(y) + y))
        return z


def test_halves_compose_to_the_whole_and_share_its_weights() -> None:
    for name in MODELS:
        model = build(name, (3, 32, 32), 10, 0).eval()
        front, back = split(model, MODELS[name].cut)
        x = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(back.eval()(front.eval()(x)), model(x))
        names = {*dict(front.named_parameters()), *dict(back.named_parameters())}
        assert names == set(dict(model.named_parameters()))
        assert not set(dict(front.named_parameters())) & set(dict(back.named_parameters()))


def test_unused_sizes_do_not_pass_the_cut() -> None:
    class Unpacks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            n, c, h, w = y.shape
            z: torch.Tensor = self.third(self.second(y.reshape(n, c, h * w, 1)))
            return z

    assert cut_points(Unpacks()) == ["first", "second"]


def test_two_tensors_are_refused_and_named() -> None:
    with pytest.raises(ExportError, match=r"cannot cut at 'second': 2 tensors pass there \('first', 'second'\).*join"):
        split(Residual(), "second")


def test_unknown_layer_gets_near_names_and_the_list() -> None:
    with pytest.raises(UnknownName, match=r"unknown layer 'jion': did you mean join\?.*first, join"):
        split(Residual(), "jion")


def test_layer_that_is_never_called() -> None:
    with pytest.raises(ExportError, match="'unused' is not called"):
        split(Residual(), "unused")


def test_last_layer_leaves_nothing() -> None:
    with pytest.raises(ExportError, match="nothing is left for the server"):
        split(Residual(), "head")


def test_cut_points_are_what_split_takes() -> None:
    model = build("resnet18", (3, 32, 32), 10, 0)
    points = cut_points(model)
    assert "layer2.1" in points and "layer2.1.conv1" not in points
    for point in points:
        split(model, point)


def test_forward_that_branches_on_values() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"cannot be traced by torch.fx"):
        split(Branching(), "any")

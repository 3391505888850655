"""A user's own network by module:factory: what works, and what each mistake is told."""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from edgekit.cli.models import models
from edgekit.errors import ExportError, UnknownName, UsageError
from edgekit.export.models.own import classes_of, load_model
from edgekit.export.models.registry import build, default_cut

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))

def make(**arguments):
    return Net(**arguments)

def explode():
    raise KeyError("width")

def nothing():
    pass

ready = Net()
table = {}
"""
NUMBERS = count()
SHAPE = (3, 9, 12)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, which is not on the path; each test has one of its own."""
    name = f"own_net_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_factory_gets_its_arguments(module: str) -> None:
    network = load_model(f"{module}:make", {"width": 16})
    assert network.get_submodule("fc").weight.shape == (4, 16)
    assert isinstance(load_model(f"{module}:Net", {}), nn.Module), "a class is a factory"


def test_module_inside_a_package(tmp_path: Path, module: str) -> None:
    package = tmp_path / f"package_{module}"
    package.mkdir()
    (tmp_path / f"{module}.py").rename(package / "model.py")
    assert default_cut(f"{package.name}.model:make") is None
    assert isinstance(build(f"{package.name}.model:make", SHAPE, 4, seed=0), nn.Module)


def test_seed_decides_the_weights_and_nothing_else_moves(module: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    first, same, other = (build(f"{module}:make", SHAPE, 4, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(4), expected), "building a network moved torch's random state"
    weights = [network.state_dict()["conv.weight"] for network in (first, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.training and first.get_submodule("bn").training
    torch.manual_seed(5)
    assert torch.equal(load_model(f"{module}:make", {}).state_dict()["conv.weight"], weights[0]), "left as constructed"


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("{}:mak", UnknownName, r"unknown factory 'mak': did you mean make\?.*own_net_\d+ does not define it"),
        ("{}:", UsageError, r"expected package.module:factory, for example mynet.model:make"),
        (":make", UsageError, r"model ':make': expected package.module:factory"),
        ("{}:a.b", UsageError, r"expected package.module:factory"),
        ("../{}:make", UsageError, r"expected package.module:factory"),
        ("no_such_{}:make", UsageError, r"module 'no_such_own_net_\d+' is neither in .* nor installed: .*PYTHONPATH"),
        ("{}.inner:make", UsageError, r"module 'own_net_\d+.inner' is neither"),
        ("{}:ready", UsageError, r":ready is a Net: expected a function or class that makes a new torch.nn.Module"),
        ("{}:table", UsageError, r":table is a dict: expected a function"),
        ("{}:nothing", ExportError, r":nothing returned a NoneType: expected a torch.nn.Module; return the network"),
        ("{}:explode", ExportError, r":explode\(\) raised KeyError: 'width' \(.*own_net_\d+.py, line 18\); expected"),
    ],
)
def test_what_is_no_factory(module: str, reference: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(reference.format(module), {})


def test_wrong_arguments_are_shown_and_the_cause_is_kept(module: str) -> None:
    with pytest.raises(ExportError, match=r"make\(depth=3\) raised TypeError: .*unexpected.*'depth'") as caught:
        load_model(f"{module}:make", {"depth": 3})
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", r"raised ModuleNotFoundError: No module named 'no_such_library' \(.*, line 1\)"),
        ("x = = 1", r"raised SyntaxError: invalid syntax"),
        ("def f():\n    return 1 / 0\nf()", r"raised ZeroDivisionError: division by zero \(.*own_net_\d+.py, line 2\)"),
    ],
)
def test_module_that_does_not_import(tmp_path: Path, module: str, source: str, message: str) -> None:
    (tmp_path / f"{module}.py").write_text(source)
    with pytest.raises(ExportError, match=message) as caught:
        load_model(f"{module}:make", {})
    assert caught.value.__cause__ is not None


def test_classes_that_differ_from_the_datasets(module: str) -> None:
    with pytest.raises(UsageError, match=r"gives 4 scores, 10 classes were asked for: expected as many; make its last"):
        build(f"{module}:make", SHAPE, 10, seed=0)


def test_input_that_it_does_not_take(module: str) -> None:
    with pytest.raises(ExportError, match=r"Net raised RuntimeError: .*channels.*line 12\) on an image of shape") as e:
        build(f"{module}:make", (1, 9, 9), 4, seed=0)
    assert isinstance(e.value.__cause__, RuntimeError) and "--input C,H,W" in str(e.value)


class Gives(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> Any:
        assert not self.training and x.shape == (1, *SHAPE) and not x.any()
        return self.value


def test_classes_are_counted_without_leaving_a_trace() -> None:
    network = Gives(torch.zeros(1, 7))
    assert classes_of(network, SHAPE) == 7 and network.training
    assert classes_of(network.eval(), SHAPE) == 7 and not network.training


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.zeros(7), r"a Tensor of shape \(7,\)"),
        (torch.zeros(2, 7), r"a Tensor of shape \(2, 7\)"),
        (torch.zeros(1, 7, 1, 1), r"a Tensor of shape \(1, 7, 1, 1\)"),
        ((torch.zeros(1, 7), None), "a tuple"),
        ({"logits": torch.zeros(1, 7)}, "a dict"),
    ],
)
def test_what_are_no_scores(value: Any, told: str) -> None:
    with pytest.raises(UsageError, match=rf"Gives returned {told} for an image of .*: expected the scores alone"):
        classes_of(Gives(value), SHAPE)


def test_weights_of_an_own_model(module: str, tmp_path: Path) -> None:
    path = str(tmp_path / "w.safetensors")
    trained = build(f"{module}:make", SHAPE, 4, seed=1)
    save_file(trained.state_dict(), path)
    state = build(f"{module}:make", SHAPE, 4, 2, weights=path).state_dict()
    assert all(torch.equal(state[name], value) for name, value in trained.state_dict().items())


def test_command_lists_models_and_layers(module: str) -> None:
    def shown(*arguments: str) -> str:
        return CliRunner().invoke(models, arguments, catch_exceptions=False).stdout

    rows = json.loads(shown("--json", "--input", "3,224,224", "--classes", "1000"))
    assert rows["resnet18"] == {"cut": "layer2.1", "parameters": 11_689_512} and len(rows) == 11
    assert "resnet18             cut at layer2.1                11,173,962 parameters" in shown().splitlines()
    lines = shown("vgg11_thin").splitlines()
    assert lines[0] == "features.0" and lines.count("features.7  (default)") == 1
    own = json.loads(shown(f"{module}:make", "--input", "3,9,9", "--classes", "4", "--json"))
    assert own == {"model": f"{module}:make", "cut": None, "layers": ["conv", "bn"]}
    with pytest.raises(ExportError, match=r"expected input\[1, 1, 9, 9\] to have 3 channels"):
        shown(f"{module}:make", "--input", "1,9,9")

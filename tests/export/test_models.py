"""The networks have the published sizes, the documented shapes, and weights that the seed alone decides."""

import re

import pytest
import torch
from torch import fx, nn

from edgekit.errors import UnknownName, UsageError
from edgekit.export.models import mobilenet, resnet, vgg
from edgekit.export.models.registry import MODELS, build, default_cut
from edgekit.export.split import cut_points

torch.set_num_threads(1)
DOCUMENTED = {"vgg11": vgg, "mobilenet_v1": mobilenet, "resnet18": resnet}


def built_on_meta(name: str, shape: tuple[int, int, int], classes: int = 10) -> nn.Module:
    """Shapes without values: no memory, no time."""
    with torch.device("meta"):
        return build(name, shape, classes, seed=0)


def output_shape(network: nn.Module, layer: str, image: torch.Tensor) -> tuple[int, ...]:
    shapes: list[tuple[int, ...]] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape)))
    network(image)
    handle.remove()
    (shape,) = shapes
    return shape


@pytest.mark.parametrize(
    ("name", "parameters"), [("vgg11", 132_868_840), ("resnet18", 11_689_512), ("mobilenet_v1", 4_231_976)]
)
def test_number_of_parameters_is_the_published_one(name: str, parameters: int) -> None:
    network = built_on_meta(name, (3, 224, 224), 1000)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_documented_shapes(name: str) -> None:
    docs = DOCUMENTED[name].__doc__ or ""
    sides = [int(side) for side in re.findall(r"(\d+) px", docs)]
    rows = re.findall(r"^``(\S+)``\s+(\S+)\s+(\S+)\s+(\S+)(.*)$", docs, re.MULTILINE)
    assert len(rows) >= 4
    assert [row[0] for row in rows if "default cut" in row[4]] == [default_cut(name)]
    for column, side in enumerate(sides, 1):
        network = built_on_meta(name, (3, side, side))
        image = torch.empty(2, 3, side, side, device="meta")
        for row in rows:
            expected = tuple(int(size) for size in row[column].split("x"))
            assert output_shape(network, row[0], image) == (2, *expected), (row[0], side)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 63, 40), (3, 64, 64), (1, 224, 224)])
def test_any_input_gives_one_score_per_class(name: str, shape: tuple[int, int, int]) -> None:
    network = built_on_meta(name, shape, 7)
    assert network(torch.empty(2, *shape, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_can_be_traced_and_cut_where_it_says(name: str) -> None:
    network = build(name, (1, 28, 28), 10, seed=3).eval()
    images = torch.rand(2, 1, 28, 28)
    traced = fx.symbolic_trace(network)
    torch.testing.assert_close(traced(images), network(images), rtol=0, atol=0)
    assert default_cut(name) in cut_points(network)


@pytest.mark.parametrize("name", MODELS)
def test_seed_decides_the_weights_and_nothing_else_moves(name: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    first, same, other = (build(name, (3, 32, 32), 10, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.rand(4), expected), "building a network moved torch's random state"
    assert all(torch.equal(first[key], same[key]) for key in first)
    drawn = [key for key, value in first.items() if value.is_floating_point() and value.std() > 0]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", MODELS)
def test_first_weights_have_the_variance_of_he(name: str) -> None:
    for layer, module in build(name, (3, 32, 32), 10, seed=0).named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.25), layer
            assert abs(module.weight.mean().item()) < 0.25 * (2 / fan_in) ** 0.5, layer


def test_names_of_weights_are_stable() -> None:
    """Bundles and checkpoints hold these names."""
    keys = {name: list(build(name, (3, 32, 32), 10, seed=0).state_dict()) for name in MODELS}
    assert {name: len(names) for name, names in keys.items()} == {"vgg11": 50, "mobilenet_v1": 164, "resnet18": 122}
    assert keys["vgg11"][::12] == [
        "features.0.weight",
        "features.8.weight",
        "features.15.weight",
        "features.22.weight",
        "classifier.weight",
    ]
    assert keys["mobilenet_v1"][::54] == [
        "stem.conv.weight",
        "blocks.4.depthwise.conv.weight",
        "blocks.8.pointwise.conv.weight",
        "fc.weight",
    ]
    assert keys["resnet18"][::40] == ["conv1.weight", "layer2.0.bn2.running_var", "layer3.1.bn1.bias", "fc.weight"]


def test_unknown_name_offers_the_near_one() -> None:
    with pytest.raises(UnknownName, match=r"'vgg1'.*did you mean vgg11\?.*edgekit models"):
        build("vgg1", (3, 32, 32), 10, seed=0)
    with pytest.raises(UnknownName, match="resnet18"):
        default_cut("resnet81")


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((1, 8, 8), 10, r"8x8 pixels: expected at least 16"),
        ((3, 32, 15), 10, r"32x15 pixels"),
        ((0, 32, 32), 10, "0 channels and 10 classes"),
        ((3, 32, 32), 1, "3 channels and 1 classes"),
    ],
)
def test_what_cannot_be_built_is_refused(shape: tuple[int, int, int], classes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("resnet18", shape, classes, seed=0)

"""The networks have the published sizes, the documented shapes, and weights that the seed alone decides."""

import importlib
import re

import pytest
import torch
from torch import fx, nn

from edgekit.errors import UnknownName, UsageError
from edgekit.export.models.listing import layers, listing
from edgekit.export.models.registry import MODELS, build, default_cut
from edgekit.export.split import cut_points, split

torch.set_num_threads(1)

#: For 3x224x224 and 1000 classes. torchvision counts the same, except mobilenet_v1 (Howard et al.: 4.2 million), allcnn
#: (Springenberg et al.: less than 10 million) and vgg11_thin, which nobody published at this size.
PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg11": 132_868_840,
    "vgg16": 138_365_992,
    "vgg11_thin": 977_544,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "shufflenet_v2": 2_278_604,
    "shufflenet_v2_half": 1_366_792,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "allcnn": 9_377_096,
}


def built_on_meta(name: str, shape: tuple[int, int, int], classes: int = 10) -> nn.Module:
    """Shapes without values: no memory, no time."""
    with torch.device("meta"):
        return build(name, shape, classes, seed=0)


def output_shapes(network: nn.Module, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Layer -> the shape that comes out of it."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(layer: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _i, out: shapes.update({layer: tuple(out.shape)}))

    for layer, module in network.named_modules():
        note(layer, module)
    network(image)
    return shapes


def documented(name: str) -> list[tuple[str, ...]]:
    """Layer, its shape at 28, 32 and 224 px, and the remark, of each row of the model's table."""
    docs = importlib.import_module(MODELS[name].factory.split(":")[0]).__doc__ or ""
    _, _, table = docs.partition(f"after {name}'s")
    table = table or docs.partition("after layer")[2]
    rows = re.compile(r"^``(\S+)``\s+(\S+)\s+(\S+)\s+(\S+)(.*)$", re.MULTILINE).findall(table.partition("\n\n")[0])
    assert re.match(r"\s+28 px\s+32 px\s+224 px", table) and len(rows) >= 4
    return rows


def test_numbers_of_parameters_are_the_published_ones() -> None:
    rows = listing((3, 224, 224), 1000)
    assert {row.name: row.parameters for row in rows} == PARAMETERS
    assert all(row.cut == default_cut(row.name) for row in rows)


def test_numbers_of_the_papers_whose_networks_were_changed() -> None:
    """All-CNN-C has 1.37 million: batch norm's shifts stand for the biases. FSFL counts the thin VGG's filters."""
    allcnn = built_on_meta("allcnn", (3, 32, 32)).named_parameters()
    assert sum(p.numel() for key, p in allcnn if not key.endswith("bn.weight")) == 1_369_738
    thin = built_on_meta("vgg11_thin", (3, 32, 32)).modules()
    assert sum(len(m.weight) for m in thin if isinstance(m, (nn.Conv2d, nn.Linear))) == 1002


@pytest.mark.parametrize("name", MODELS)
def test_documented_shapes(name: str) -> None:
    rows = documented(name)
    assert [row[0] for row in rows if "default cut" in row[4]] == [default_cut(name)]
    for column, side in enumerate((28, 32, 224), 1):
        network = built_on_meta(name, (3, side, side))
        shapes = output_shapes(network, torch.empty(2, 3, side, side, device="meta"))
        for row in rows:
            expected = tuple(int(size) for size in row[column].split("x"))
            assert shapes[row[0]] == (2, *expected), (row[0], side)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 63, 40), (3, 64, 64), (1, 224, 224)])
def test_any_input_gives_one_score_per_class(name: str, shape: tuple[int, int, int]) -> None:
    network = built_on_meta(name, shape, 7)
    assert network(torch.empty(2, *shape, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_can_be_traced_and_cut_where_it_says(name: str) -> None:
    network = build(name, (1, 28, 28), 10, seed=3).eval()
    images = torch.rand(2, 1, 28, 28)
    scores = network(images)
    traced = fx.symbolic_trace(network)
    torch.testing.assert_close(traced(images), scores, rtol=0, atol=0)
    cut = default_cut(name)
    assert cut is not None and cut in cut_points(network)
    front, back = split(network, cut)
    feature = front.eval()(images)
    assert feature.shape[1] % 8 == 0, "groups of the codec divide the channels"
    torch.testing.assert_close(back.eval()(feature), scores, rtol=0, atol=0)
    # A half that was traced fits any batch.
    assert back(front(torch.rand(5, 1, 28, 28))).shape == (5, 10)


@pytest.mark.parametrize("name", MODELS)
def test_large_form_is_cut_at_the_same_layer(name: str) -> None:
    assert default_cut(name) in cut_points(built_on_meta(name, (3, 224, 224)))


@pytest.mark.parametrize(
    ("name", "units", "inside"),
    [
        ("resnet34", ["layer1.0", "layer2.3", "layer3.5", "layer4.2"], "layer2.3.conv2"),
        ("shufflenet_v2", ["stage2.0", "stage2.3", "stage3.7", "stage4.0"], "stage3.7.branch2"),
        ("mobilenet_v2", ["features.1", "features.3", "features.17", "features.18"], "features.3.conv"),
    ],
)
def test_whole_units_are_cut_points_and_their_insides_are_not(name: str, units: list[str], inside: str) -> None:
    points = cut_points(built_on_meta(name, (3, 32, 32)))
    assert set(units) <= set(points) and inside not in points


@pytest.mark.parametrize("name", MODELS)
def test_no_layer_writes_over_its_input(name: str) -> None:
    """torch.export and the gradient graph read what a layer got after it ran."""
    assert not any(getattr(module, "inplace", False) for module in built_on_meta(name, (3, 32, 32)).modules())


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


#: Number of tensors, and some names: torchvision's, where it has the network.
NAMES = {
    "alexnet": (12, "features.3.weight classifier.bias"),
    "vgg11": (50, "features.0.weight features.8.weight features.23.running_var classifier.weight"),
    "vgg16": (80, "features.7.weight features.40.weight features.41.bias classifier.bias"),
    "vgg11_thin": (52, "features.4.weight features.26.bias classifier.0.weight classifier.3.bias"),
    "resnet18": (122, "conv1.weight bn1.bias layer2.0.downsample.1.weight layer3.1.bn1.bias fc.weight"),
    "resnet34": (218, "conv1.weight layer2.3.bn2.running_mean layer4.0.downsample.0.weight fc.bias"),
    "shufflenet_v2": (338, "conv1.0.weight stage2.0.branch1.2.weight stage3.7.branch2.6.weight conv5.0.weight fc.bias"),
    "shufflenet_v2_half": (338, "conv1.1.bias stage4.0.branch1.3.running_var stage4.3.branch2.5.weight fc.weight"),
    "mobilenet_v1": (164, "stem.conv.weight blocks.4.depthwise.conv.weight blocks.8.pointwise.bn.bias fc.weight"),
    "mobilenet_v2": (
        314,
        "features.1.conv.0.0.weight features.17.conv.3.weight features.18.0.weight classifier.1.bias",
    ),
    "allcnn": (50, "conv1.conv.weight conv8.bn.running_mean classifier.bias"),
}
LARGE_NAMES = {
    "alexnet": (16, "features.0.bias features.10.weight classifier.1.weight classifier.4.weight classifier.6.bias"),
    "vgg16": (97, "features.0.bias features.41.weight classifier.0.weight classifier.3.weight classifier.6.bias"),
}


@pytest.mark.parametrize(
    ("side", "name", "count", "some"),
    [(side, name, *row) for side, table in ((32, NAMES), (224, LARGE_NAMES)) for name, row in table.items()],
)
def test_names_of_weights_are_stable(side: int, name: str, count: int, some: str) -> None:
    """Bundles and checkpoints hold these names."""
    names = list(built_on_meta(name, (3, side, side)).state_dict())
    assert len(names) == count and set(some.split()) <= set(names)


def test_every_model_is_held_to_its_names() -> None:
    assert MODELS.keys() == NAMES.keys() == PARAMETERS.keys() and len(MODELS) == 11


def test_layers_of_a_model() -> None:
    cut, names = layers("mobilenet_v1", (1, 28, 28), 10)
    assert cut == "blocks.3.depthwise" and names[0] == "stem.conv" and cut in names


def test_unknown_name_offers_the_near_one() -> None:
    with pytest.raises(UnknownName, match=r"'vgg12'.*did you mean vgg1.*edgekit models.*package.module:factory"):
        build("vgg12", (3, 32, 32), 10, seed=0)
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

"""What each node and each cut costs, held to figures computed by hand and to published ones."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from edgekit.codecs.registry import feature_codec
from edgekit.errors import ExportError, UnknownName
from edgekit.export.graphs import front_graphs
from edgekit.export.models.registry import build, default_cut
from edgekit.export.plan.cuts import Cut, chosen, cut_table
from edgekit.export.plan.work import count_parameters, network_work
from edgekit.export.split import cut_points, split

SGQ = feature_codec("sgq", {"groups": 4, "bits": 4})


class Residual(nn.Module):
    """8x8 image -> 4x8x8 at "relu" -> 2 classes, with a sum, a squeeze-and-excite branch and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.block = nn.Sequential(OrderedDict(depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4), act=nn.SiLU()))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout()
        self.up = nn.ConvTranspose2d(4, 8, 3, stride=2, padding=1, output_padding=1)
        self.clip = nn.ReLU6()
        self.fc = nn.Linear(8 * 8 * 8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn(self.conv(x)))
        z = self.block(y)
        y = y + z * self.gate(z)
        y = self.clip(self.up(self.drop(self.pool(torch.relu(y)))))
        scores: torch.Tensor = self.fc(y.flatten(1))
        return scores


def by_layer(table: list[Cut]) -> dict[str, Cut]:
    return {cut.layer: cut for cut in table}


def test_flops_by_hand() -> None:
    work = network_work(Residual(), (3, 8, 8), batch=2).nodes
    values = 2 * 4 * 64
    assert work["conv"].flops == 2 * values * 3 * 9
    assert work["bn"].flops == 2 * values
    assert work["relu"].flops == values
    assert work["block_depthwise"].flops == 2 * values * 9
    assert work["block_act"].flops == values
    assert work["gate_0"].flops == values
    assert work["gate_1"].flops == 2 * 2 * 4 * 4
    assert work["mul"].flops == work["add"].flops == values
    assert work["pool"].flops == values // 4 * 4
    assert work["drop"].flops == 0
    # Every value of the smaller input meets every weight of its channel.
    assert work["up"].flops == 2 * (2 * 4 * 16) * 8 * 9
    assert work["flatten"].flops == 0
    assert work["fc"].flops == 2 * 2 * 512 * 2


def test_traffic_by_hand() -> None:
    work = network_work(Residual(), (3, 8, 8), batch=2).nodes
    values, weights = 2 * 4 * 64, 4 * 3 * 9
    assert (work["conv"].bytes_read, work["conv"].bytes_written) == (4 * (2 * 3 * 64 + weights), 4 * values)
    assert (work["bn"].bytes_read, work["bn"].bytes_written) == (4 * (values + 4 * 4), 4 * values)
    assert (work["add"].bytes_read, work["add"].bytes_written) == (4 * 2 * values, 4 * values)
    assert work["mul"].bytes_read == 4 * (values + 2 * 4)
    # The indices are integers, and no part of the feature.
    assert work["pool"].bytes_written == values
    assert work["flatten"].bytes_read == work["drop"].bytes_read == 0
    assert work["fc"].bytes_read == 4 * (2 * 512 + 2 * 512 + 2)


def test_gradients_are_counted_for_weights_and_for_inputs_that_have_any() -> None:
    work = network_work(Residual(), (3, 8, 8)).nodes
    assert {name: work[name].gradients for name in ("x", "conv", "bn", "relu", "block_depthwise", "add", "pool")} == {
        "x": 0, "conv": 1, "bn": 2, "relu": 1, "block_depthwise": 2, "add": 2, "pool": 1,
    }  # fmt: skip


def test_what_an_engine_joins_to_the_node_before() -> None:
    work = network_work(Residual(), (3, 8, 8)).nodes
    assert all(work[name].joins for name in ("bn", "relu", "block_act", "gate_2", "clip"))
    assert not any(work[name].joins for name in ("conv", "block_depthwise", "add", "mul", "pool", "gate_0", "up", "fc"))


def test_parameter_used_in_forward_itself() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))
            self.act = nn.ReLU()
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.act(x * self.scale))
            return y

    work = network_work(Scaled(), (3, 8, 8))
    front, back = work.halves("act")
    assert count_parameters(front) == 3 and count_parameters(back) == 8
    assert work.nodes["mul"].gradients == 1


def test_table_of_a_residual_network() -> None:
    network = Residual()
    table = cut_table(network, (3, 8, 8), SGQ)
    assert [cut.layer for cut in table] == cut_points(network)
    cuts = by_layer(table)
    total = sum(parameter.numel() for parameter in network.parameters())
    flops = sum(node.flops for node in network_work(network, (3, 8, 8)).nodes.values())
    for cut in table:
        assert cut.parameters_before + cut.parameters_after == total
        assert cut.flops_before + cut.flops_after == flops
        front, _ = split(network, cut.layer)
        assert cut.parameters_before == sum(parameter.numel() for parameter in front.parameters())
        assert tuple(front(torch.zeros(2, 3, 8, 8)).shape) == (2, *cut.shape)
    assert not {"block", "gate", "gate.0"} & set(cuts), "another tensor passes there"
    assert cuts["relu"].raw_bytes == 4 * 4 * 64 and cuts["relu"].coded_bytes == 4 * 4 * 64 / 8
    after_relu = {layer for layer, cut in cuts.items() if cut.after_relu}
    assert after_relu == {"relu", "pool", "drop", "clip"}
    assert {layer for layer, cut in cuts.items() if cut.good} == after_relu
    # Dropout does nothing in evaluation mode: it ends with what came before.
    assert cuts["drop"].operator == cuts["pool"].operator == "max_pool2d_with_indices"


def test_what_cannot_be_coded_is_listed_with_the_reason() -> None:
    table = by_layer(cut_table(build("resnet18", (3, 32, 32), 10, 0), (3, 32, 32), feature_codec("sgq", {"groups": 3})))
    assert "choose --groups from 1, 2, 4" in table["relu"].refusal
    assert table["relu"].coded_bytes is None and table["relu"].raw_bytes is None
    assert "[512] an image, expected (C,h,w)" in table["flatten"].refusal


def test_halves_without_parameters_are_no_use() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    first, *others = cut_table(network, (3, 8, 8), SGQ)
    assert "no parameters lie before it" in first.refusal
    assert [cut.layer for cut in others] == ["1", "2", "3"]
    assert all("no parameters lie behind it" in cut.refusal for cut in others)


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2"])
def test_after_relu_is_what_the_bundle_says(name: str) -> None:
    shape, codec = (3, 16, 16), feature_codec("raw", {})
    network = build(name, shape, 10, 0)
    cuts = chosen(cut_table(network, shape, codec), default_cut(name), everything=True)[:9]
    assert len({cut.after_relu for cut in cuts}) == 2
    for cut in cuts:
        front, _ = split(network, cut.layer)
        assert front_graphs(front, shape, codec, {}).after_relu == cut.after_relu, cut.layer


@pytest.mark.parametrize(
    ("name", "multiply_adds"), [("resnet18", 1.814e9), ("mobilenet_v1", 0.569e9), ("vgg11", 7.61e9)]
)
def test_flops_are_twice_the_published_multiply_adds(name: str, multiply_adds: float) -> None:
    shape = (3, 224, 224)
    flops = sum(node.flops for node in network_work(build(name, shape, 1000, 0), shape).nodes.values())
    # Batch norms, activations and pools are counted besides.
    assert 1.0 <= flops / (2 * multiply_adds) < 1.03


def test_network_stays_as_it_was() -> None:
    network = Residual()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.relu.eval()
    cut_table(network, (3, 8, 8), SGQ)
    assert network.training and network.bn.training and not network.relu.training
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(parameter.is_meta for parameter in network.parameters())


def test_images_that_the_network_does_not_take() -> None:
    with pytest.raises(ExportError, match=r"Residual does not take images of 1,8,8: .*give the --input"):
        cut_table(Residual(), (1, 8, 8), SGQ)


def test_chosen_cuts_are_good_and_each_there_once() -> None:
    network = build("resnet18", (3, 32, 32), 10, 0)
    default = default_cut("resnet18")
    table = cut_table(network, (3, 32, 32), SGQ)
    assert [cut.layer for cut in chosen(table, default)] == [
        "relu", "layer1.0", "layer1", "layer2.0", "layer2.1", "layer3.0", "layer3", "layer4.0", "layer4", "avgpool",
    ]  # fmt: skip
    everything = [cut.layer for cut in chosen(table, default, everything=True)]
    assert everything[:3] == ["conv1", "bn1", "relu"] and everything[-1] == "flatten" and default in everything
    assert [cut.layer for cut in chosen(table, default, ["bn1", "flatten"])] == ["bn1", "flatten"]
    with pytest.raises(UnknownName, match=r"unknown cut 'layer21': did you mean .*layer2\.1.*edgekit cuts"):
        chosen(table, default, ["layer21"])

"""The order of channels in the deployed graph, on every board: given, replaced, and never an integer from outside."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.sgq import SGQ
from edgekit.device_profiles.registry import profile, profiles
from edgekit.export.fold import fold_norms
from edgekit.export.graphs import deployed_graph, front_graphs
from edgekit.runtime.backends.registry import backend_class

CHANNELS = 12
CODEC = SGQ(groups=3, bits=3)


class Residual(nn.Module):
    """Whose feature no one convolution makes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, CHANNELS, 1), nn.Conv2d(1, CHANNELS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(x) + self.second(x))


def front() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def tables(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    book = np.maximum(rng.normal(size=(CODEC.words, CHANNELS)), 0).astype(np.float32)
    return {"codebook": book, "order": rng.permutation(CHANNELS)}


@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
@pytest.mark.parametrize("board", profiles())
def test_a_new_order_reaches_a_graph_that_the_board_takes(board: str, engine: str) -> None:
    target = profile(board)
    model, spec = deployed_graph(front(), (1, 6, 6), CODEC, tables(0), target, 4)
    assert gathers(model) == 1 and not any(n.op_type == "GatherND" for n in onnx.load_from_string(model).graph.node)
    wanted = spec.held if target.target.codebooks == "inputs" else spec.constants
    assert ("codebook_order", "float32", (CHANNELS,)) in [tuple(each) for each in wanted]
    image = np.random.default_rng(1).normal(size=(4, 1, 6, 6)).astype(np.float32)
    with torch.no_grad():
        feature = front()(torch.from_numpy(image)).numpy()
    backend = backend_class(engine)(model, spec)
    for seed in (0, 5):
        new = tables(seed)
        names = {each.name for each in spec.held + spec.constants}
        backend.set_weights({name: array for name, array in CODEC.table_feeds(new).items() if name in names})
        expected = CODEC.quantize(np.ascontiguousarray(feature[:, new["order"]]), new)["codes"]
        assert (backend.run({"image": image})["codes"] == expected).mean() > 0.99
    backend.close()


@pytest.mark.parametrize(("codec", "count"), [(CODEC, 1), (SGQ(groups=3, grouping="contiguous"), 0)])
def test_an_order_that_stays_costs_nothing(codec: SGQ, count: int) -> None:
    given = {**tables(0), "order": np.arange(CHANNELS)}
    given["codebook"] = np.zeros((codec.words, CHANNELS), np.float32)
    graphs = front_graphs(copy.deepcopy(front()), (1, 6, 6), codec, given)
    for key in ("front", "front_train", "front_grad"):
        assert gathers(graphs.models[f"{key}.onnx"]) == count, key


def gathers(model: bytes) -> int:
    return [node.op_type for node in onnx.load_from_string(model).graph.node].count("Gather")


def conv(inside: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, CHANNELS, 3, padding=1, groups=groups)


class Twice(nn.Module):
    """One convolution at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.again = conv(1), conv(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.again(torch.relu(self.again(self.one(x)))))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Sequential(conv(1), nn.ReLU(), nn.MaxPool2d(2)), ["0.weight", "0.bias"]),
        (nn.Sequential(conv(1), nn.ReLU6(), nn.AvgPool2d(2), nn.Hardsigmoid()), ["0.weight", "0.bias"]),
        (nn.Sequential(conv(1), nn.BatchNorm2d(CHANNELS), nn.LeakyReLU()), ["0.weight", "0.bias"]),
        (
            nn.Sequential(conv(1), nn.ReLU(), conv(CHANNELS, CHANNELS), nn.BatchNorm2d(CHANNELS), nn.ReLU()),
            ["2.weight", "2.bias", "0.weight", "0.bias"],
        ),
        (nn.Sequential(conv(1), nn.ReLU(), conv(CHANNELS, 3)), []),
        (nn.Sequential(conv(1), nn.Softmax(1)), []),
        (Twice(), []),
        (Residual(), []),
    ],
    ids=["pool", "average", "norm", "depthwise", "in groups", "across channels", "shared", "residual"],
)
@pytest.mark.parametrize("board", ["cpu", "atlas-200-dk"])
def test_the_order_is_that_of_the_filters_where_it_can_be(board: str, network: nn.Module, expected: list[str]) -> None:
    torch.manual_seed(0)
    folded, _ = fold_norms(network.eval())
    given = tables(0)
    model, spec = deployed_graph(folded, (1, 6, 6), CODEC, given, profile(board), 4)
    assert list(spec.ordered) == expected
    assert gathers(model) == (0 if expected else 1)
    image = np.random.default_rng(1).normal(size=(4, 1, 6, 6)).astype(np.float32)
    with torch.no_grad():
        feature = network(torch.from_numpy(image)).numpy()
    backend = backend_class("onnxruntime")(model, spec)
    backend.set_weights({each.name: CODEC.table_feeds(given)[each.name] for each in spec.held})
    codes = CODEC.quantize(np.ascontiguousarray(feature[:, given["order"]]), given)["codes"]
    assert (backend.run({"image": image})["codes"] == codes).mean() > 0.99
    backend.close()

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
from edgekit.export.build import deployed_graph, front_graphs
from edgekit.runtime.registry import backend_class

CHANNELS = 12
CODEC = SGQ(groups=3, bits=3)


def front() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, CHANNELS, 3, padding=1), nn.ReLU()).eval()


def tables(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    book = np.maximum(rng.normal(size=(CODEC.words, CHANNELS)), 0).astype(np.float32)
    return {"codebook": book, "order": rng.permutation(CHANNELS)}


@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
@pytest.mark.parametrize("board", profiles())
def test_a_new_order_reaches_a_graph_that_the_board_takes(board: str, engine: str) -> None:
    target = profile(board)
    model, spec = deployed_graph(front(), (1, 6, 6), CODEC, tables(0), target, 4)
    proto = onnx.load_from_string(model)
    gathers = [node for node in proto.graph.node if node.op_type == "Gather"]
    assert len(gathers) == 1 and not any(node.op_type == "GatherND" for node in proto.graph.node)
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
        nodes = onnx.load_from_string(graphs.models[f"{key}.onnx"]).graph.node
        assert [node.op_type for node in nodes].count("Gather") == count, key

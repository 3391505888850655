"""The local head: its graph computes what PyTorch does, in every form and engine, and leaves the other graphs alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit import tensorfile
from edgekit.bundle import LOCAL, Bundle, GraphSpec
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.registry import feature_codec
from edgekit.data.base import Dataset
from edgekit.export.build import build_bundle
from edgekit.export.graphs import front_graphs
from edgekit.export.local_head import LocalHead, local_graph
from edgekit.export.parity.golden import golden_arrays
from edgekit.export.parity.pytorch import against_pytorch
from edgekit.export.settings import BoardSettings, CalibrationImages, Coding, Network
from edgekit.export.targets.learning_rules import OPERATORS
from edgekit.runtime.backends.registry import backend_class
from edgekit.runtime.local_loss import one_hot

CLASSES = 5
RAW = feature_codec("raw", {})
#: One whose order of channels is an input of the graph.
SGQ = feature_codec("sgq", {"groups": 2, "bits": 2})


def tables_of(codec: FeatureCodec, channels: int) -> Arrays:
    return codec.calibrate(np.random.default_rng(0).standard_normal((16, channels, 3, 3), dtype=np.float32), 0)


def run(model: bytes, spec: GraphSpec, held: Arrays, feeds: Arrays, engine: str = "onnxruntime") -> Arrays:
    backend = backend_class(engine)(model, spec)
    backend.set_weights({each.name: held[each.name] for each in spec.held})
    return {name: array.copy() for name, array in backend.run(feeds).items()}


def expected(head: LocalHead, feature: np.ndarray, labels: np.ndarray, order: np.ndarray) -> Arrays:
    """By autograd; `feature` and its gradient with channels in coded `order`."""
    leaf = torch.from_numpy(feature).requires_grad_()
    loss = nn.functional.cross_entropy(head(leaf[:, np.argsort(order)]), torch.from_numpy(labels))
    head.zero_grad()
    loss.backward()
    assert leaf.grad is not None
    weights = {f"gradient.local_head.{name}": w.grad.numpy() for name, w in head.named_parameters()}  # type: ignore[union-attr]
    return {"loss": loss.detach().reshape(1).numpy(), "gradient": leaf.grad.numpy(), **weights}


@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("shape", [(6, 8, 8), (4, 7, 5), (8, 1, 1), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("codec", [RAW, SGQ], ids=str)
def test_it_computes_what_autograd_does(
    engine: str, provider: str, shape: tuple[int, ...], codec: FeatureCodec, rng: np.random.Generator
) -> None:
    head, tables = LocalHead(shape[0], CLASSES, seed=3), tables_of(codec, shape[0])
    model, spec = local_graph(head, shape, codec, tables, provider)
    for n in (1, 6):
        feature = rng.standard_normal((n, *shape), dtype=np.float32)
        labels = one_hot(rng.integers(0, CLASSES, n), CLASSES)
        held = {**head.arrays(), **codec.table_feeds(tables)}
        got = run(model, spec, held, {"feature": feature, "labels": labels}, engine)
        wanted = expected(head, feature, labels, codec.order(shape[0], tables))
        assert got.keys() == wanted.keys()
        for name, array in wanted.items():
            slack = 1e-5 * float(np.abs(array).max())
            np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=slack, err_msg=name)


def test_a_new_order_of_channels_is_followed(rng: np.random.Generator) -> None:
    head, tables = LocalHead(6, CLASSES, seed=0), tables_of(SGQ, 6)
    model, spec = local_graph(head, (6, 4, 4), SGQ, tables)
    feature, labels = rng.standard_normal((3, 6, 4, 4), dtype=np.float32), one_hot(np.array([0, 3, 3]), CLASSES)
    results = []
    for order in (tables["order"], np.array([5, 0, 3, 2, 4, 1])):
        feeds = SGQ.table_feeds({**tables, "order": order})
        given = run(model, spec, {**head.arrays(), **feeds}, {"feature": feature[:, order], "labels": labels})
        results.append({**given, "gradient": given["gradient"][:, np.argsort(order)]})
    assert not np.array_equal(tables["order"], [5, 0, 3, 2, 4, 1])
    for name, array in results[0].items():
        np.testing.assert_allclose(results[1][name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_logits_far_apart_overflow_nothing() -> None:
    head = LocalHead(4, CLASSES, seed=0)
    model, spec = local_graph(head, (4, 2, 2), RAW, {})
    feeds = {"feature": np.full((2, 4, 2, 2), 1e4, np.float32), "labels": one_hot(np.array([0, 1]), CLASSES)}
    got = run(model, spec, head.arrays(), feeds)
    assert all(np.isfinite(array).all() for array in got.values()) and got["loss"][0] > 100


def test_the_form_for_providers_holds_what_all_of_them_have() -> None:
    model, _ = local_graph(LocalHead(6, CLASSES, 0), (6, 4, 4), SGQ, tables_of(SGQ, 6), "cuda")
    assert {node.op_type for node in onnx.load_from_string(model).graph.node} <= set(OPERATORS)


def test_the_seed_draws_the_weights_and_nothing_else() -> None:
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    heads = [LocalHead(4, CLASSES, seed).arrays() for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), first)
    for name, array in heads[0].items():
        np.testing.assert_array_equal(array, heads[1][name])
    assert not np.array_equal(heads[0]["local_head.conv.weight"], heads[2]["local_head.conv.weight"])


def test_a_trained_head_goes_on_where_it_fits() -> None:
    trained = LocalHead(4, CLASSES, seed=9).arrays()
    for name, array in LocalHead(4, CLASSES, 0, trained).arrays().items():
        np.testing.assert_array_equal(array, trained[name])
    for head in (LocalHead(6, CLASSES, 0, trained), LocalHead(6, CLASSES, 0, {})):
        np.testing.assert_array_equal(
            head.arrays()["local_head.conv.weight"], LocalHead(6, CLASSES, 0).arrays()["local_head.conv.weight"]
        )


def test_the_other_graphs_are_the_same_without_a_head() -> None:
    torch.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    tables = tables_of(SGQ, 6)
    plain = front_graphs(front, (1, 8, 8), SGQ, tables)
    headed = front_graphs(front, (1, 8, 8), SGQ, tables, head=LocalHead(6, CLASSES, 0))
    assert headed.models.pop("local.onnx") and headed.specs.pop(LOCAL)
    assert headed.models == plain.models and headed.specs == plain.specs
    assert list(headed.state) == list(plain.state) and not plain.head and len(headed.head) == 4


def test_a_bundle_has_a_head_unless_told_otherwise(
    small_bundle: Bundle, tmp_path: Path, digits: Dataset, depthwise_net: type[nn.Module]
) -> None:
    assert small_bundle.head == tuple(small_bundle.head_weights()) == tuple(LocalHead(16, 10, 0).arrays())
    golden = small_bundle.arrays("golden.safetensors")
    assert {"labels", "local.loss", "local.gradient", "local.gradient.local_head.conv.weight"} <= set(golden)
    torch.manual_seed(0)
    network, coding = Network(depthwise_net(), "net", "6"), Coding(RAW)
    images = CalibrationImages(digits.train_images[:16], digits.mean, digits.std, 10)
    without, with_head = (
        build_bundle(str(tmp_path / str(local)), network, images, coding, BoardSettings(local_head=local))
        for local in (False, True)
    )
    assert without.head == () and LOCAL not in without.graphs
    new = set(with_head.manifest["files"]) - set(without.manifest["files"])
    assert new == {"local.onnx", "local.safetensors"}
    for name in set(without.manifest["files"]) - {"golden.safetensors"}:
        if not name.endswith(".pt2"):
            assert without.read(name) == with_head.read(name), name
    assert not any(name.startswith(("local", "labels")) for name in without.arrays("golden.safetensors"))


def test_golden_data_of_another_head_is_found(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    front = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    tables, head = tables_of(SGQ, 6), LocalHead(6, CLASSES, 0)
    graphs = front_graphs(front, (1, 8, 8), SGQ, tables, head=head)
    golden = golden_arrays(graphs, SGQ, tables, rng.standard_normal((4, 1, 8, 8), dtype=np.float32), seed=0)
    for given, passes in ((head, True), (LocalHead(6, CLASSES, 1), False)):
        (check,) = [each for each in against_pytorch(front, False, golden, SGQ, tables, given) if "local" in each.name]
        assert check.passed is passes, check


def test_weights_of_the_bundle_are_the_heads(small_bundle: Bundle) -> None:
    again = tensorfile.loads(small_bundle.read("local.safetensors"))
    for name, array in LocalHead(16, 10, seed=0).arrays().items():
        np.testing.assert_array_equal(again[name], array)

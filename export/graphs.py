"""The ONNX graphs of a front half: deployed, for training, and for the gradients of its weights."""

from typing import NamedTuple

import onnx
from torch import nn

from edgekit.bundle import LOCAL, GraphSpec
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.device_profiles.profile import Profile
from edgekit.device_profiles.registry import profile
from edgekit.errors import ExportError
from edgekit.export.commute import pool_first
from edgekit.export.encoders.registry import ENCODERS
from edgekit.export.fold import fold_norms, state_of
from edgekit.export.front import BatchNorm, FrontBuilder, image_input
from edgekit.export.gradient import differentiate
from edgekit.export.graph import BATCH, Graph, Versions
from edgekit.export.local_head import LocalHead, local_graph
from edgekit.export.ordering import fold_order, ordered
from edgekit.export.portable import make_portable
from edgekit.export.targets.check import require
from edgekit.export.targets.learning_rules import check_learning
from edgekit.folding import Fold
from edgekit.providers import CPU
from edgekit.tensors import TensorSpec


class FrontGraphs(NamedTuple):
    """The graphs of a front half as ONNX models, and the names that connect them."""

    models: dict[str, bytes]
    specs: dict[str, GraphSpec]
    #: Weights and buffers of the front half, by name, and how the deployed weights come from them.
    state: Arrays
    folds: list[Fold]
    #: Name of the coded feature among the outputs of front_train.
    feature: str
    after_relu: bool
    batch_norms: list[BatchNorm]
    #: Weights of the local head, by name; none where the graph `LOCAL` is left out.
    head: Arrays


def front_graphs(
    front: nn.Module,
    shape: tuple[int, ...],
    codec: FeatureCodec,
    tables: Arrays,
    *,
    device: Profile | None = None,
    norm: str = "batch",
    batch_size: int = 32,
    provider: str = CPU,
    head: LocalHead | None = None,
) -> FrontGraphs:
    """The deployed graph, the training graph and the gradient graph of `front` for images of `shape` (C,H,W).

    With `head` also the graph of its loss. `provider` is to run those that learn. ExportError, naming node and layer,
    for what has no lowering, has no gradient rule, or breaks a rule of `device` or of providers.
    """
    device = device or profile("cpu")
    folded, folds = fold_norms(front)
    if norm == "frozen":
        front, folds = folded, []
    learning = learning_graph(front, shape, codec, tables, portable=provider != CPU)
    if norm == "frozen" and learning.batch_norms:
        kept = ", ".join(each.running_mean.removesuffix(".running_mean") for each in learning.batch_norms)
        raise ExportError(
            f"batch norm of {kept} cannot be folded into a convolution, as norm policy 'frozen' needs: make it an "
            "nn.BatchNorm2d layer"
        )
    graph = learning.graph

    models, specs = {}, {}
    models["front.onnx"], specs["front"] = deployed_graph(folded, shape, codec, tables, device, batch_size)
    models["front_grad.onnx"], specs["front_grad"] = graph.model(
        learning.gradients, given=learning.forward, held=graph.weights, file="front_grad.onnx"
    )
    codes = [spec.name for spec in specs["front"].outputs]
    # Tensors of the forward pass that the gradient graph reads are outputs of the training graph.
    saved = [spec.name for spec in specs["front_grad"].inputs if spec.name in learning.forward]
    statistics = [name for norm in learning.batch_norms for name in (norm.batch_mean, norm.batch_var)]
    outputs = list(dict.fromkeys([*codes, learning.feature, *statistics, *saved]))
    models["front_train.onnx"], specs["front_train"] = graph.model(outputs, held=graph.weights, file="front_train.onnx")
    if provider != CPU:
        for file in ("front_train.onnx", "front_grad.onnx"):
            check_learning(onnx.ModelProto.FromString(models[file]), provider, graph.layers)
    if head is not None:
        at_cut = graph.shape(learning.feature)[1:]
        models["local.onnx"], specs[LOCAL] = local_graph(head, at_cut, codec, tables, provider)
    return FrontGraphs(
        models,
        specs,
        state_of(front),
        folds,
        learning.feature,
        _after_relu(graph, learning.feature),
        learning.batch_norms,
        head.arrays() if head is not None else {},
    )


def deployed_graph(
    folded: nn.Module, shape: tuple[int, ...], codec: FeatureCodec, tables: Arrays, device: Profile, batch_size: int
) -> tuple[bytes, GraphSpec]:
    """The deployed graph, front.onnx, of a `folded` front half, with the quantise stage, and its spec.

    ExportError names the nodes that break board rules of `device`.
    """
    target = device.target
    graph = Graph(Versions(target.opset, target.ir_version))
    feature = FrontBuilder(graph, training=False).build(folded, image_input(graph, shape))
    arranged = fold_order(graph, feature, codec, tables)
    graph.in_layer("codec")
    if not arranged:
        feature = ordered(graph, feature, codec, tables)
    ENCODERS[codec.codec_id].encode(graph, feature, codec, tables, target.scores)
    model, spec = graph.model(
        [spec.name for spec in codec.code_specs(graph.specs[feature])],
        held=codec.table_feeds(tables) if target.codebooks == "inputs" else (),
        file="front.onnx",
        batch=batch_size if target.static else BATCH,
        ordered=arranged,
    )
    require(onnx.ModelProto.FromString(model), device, graph.layers, [constant.name for constant in spec.constants])
    return model, spec


class LearningGraph(NamedTuple):
    """Forward pass in training mode, quantise stage, and the gradients of all weights, in one graph."""

    graph: Graph
    #: The feature in coded order, the names of all tensors of the forward pass, and those of the gradients.
    feature: str
    forward: set[str]
    gradients: list[str]
    batch_norms: list[BatchNorm]


def learning_graph(
    front: nn.Module, shape: tuple[int, ...], codec: FeatureCodec, tables: Arrays, *, portable: bool = False
) -> LearningGraph:
    """One graph of forward pass and gradients; front_train.onnx and front_grad.onnx are parts of it.

    `portable`: in the form for other providers than the CPU's (export/portable.py).
    """
    graph = Graph()
    builder = FrontBuilder(graph, training=True)
    raw = builder.build(front, image_input(graph, shape))
    pool_first(graph, raw)
    graph.in_layer("codec")
    feature = ordered(graph, raw, codec, tables)
    ENCODERS[codec.codec_id].encode(graph, feature, codec, tables, "conv")
    n_forward = len(graph.nodes)
    gradient = graph.input(TensorSpec("gradient", "float32", graph.shape(feature)))
    trainable = [name for name, _ in front.named_parameters() if name in graph.weights]
    if not trainable:
        raise ExportError("no weight of the front half has requires_grad: nothing is left for the device to train")
    arrived = ordered(graph, gradient, codec, tables, back=True)
    computed = differentiate(graph, raw, arrived, trainable)
    graph.in_layer("")
    results = [
        graph.add("Identity", [computed[name]], graph.shape(name), outputs=[f"gradient.{name}"])[0]
        for name in trainable
    ]
    forward = {name for node in graph.nodes[:n_forward] for name in node.output}
    if portable:
        make_portable(graph)
    return LearningGraph(graph, feature, forward, results, builder.batch_norms)


def _after_relu(graph: Graph, feature: str) -> bool:
    """Whether `feature` is the output of a ReLU, directly or through max pooling and a new order of channels."""
    for node in reversed(graph.nodes):
        if feature in node.output:
            if node.op_type not in ("MaxPool", "Gather"):
                return node.op_type == "Relu" or (node.op_type == "Clip" and not graph.constants[node.input[1]].any())
            feature = node.input[0]
    return False

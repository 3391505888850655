"""The local head: a small classifier of the feature, which a device trains beside its front half.

::

    feature (n,C,h,w) --conv 3x3, stride 2--> ReLU --mean over positions--> linear --> logits (n,classes)
    logits, labels --> mean cross entropy --> its gradients at the feature, and of the head's weights

Devices have the labels. So the gradient of the head's loss at the cut is exact, and no byte of the line is spent on it.
"""

import onnx
import torch
from torch import nn

from edgekit.bundle import HEAD, LOCAL, GraphSpec
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.export.gradient import differentiate
from edgekit.export.graph import BATCH, Graph
from edgekit.export.models.initialise import initialise
from edgekit.export.ordering import ordered
from edgekit.export.portable import make_portable
from edgekit.export.targets.learning_rules import check_learning
from edgekit.providers import CPU
from edgekit.tensors import TensorSpec

#: Filters of its convolution.
FILTERS = 64


class LocalHead(nn.Module):
    """Logits (n,classes) of a feature (n,`channels`,h,w), channels in the network's order.

    `seed` draws the weights. `trained` ones, by the names of `arrays`, take their place where their shapes are
    the same.
    """

    def __init__(self, channels: int, classes: int, seed: int, trained: Arrays | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(channels, FILTERS, 3, stride=2, padding=1)
            self.linear = nn.Linear(FILTERS, classes)
            initialise(self)
        own, trained = self.arrays(), trained or {}
        if {name: array.shape for name, array in own.items()} == {name: a.shape for name, a in trained.items()}:
            self.load_state_dict({name.removeprefix(HEAD): torch.tensor(array) for name, array in trained.items()})

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(torch.relu(self.conv(feature)).mean(dim=(2, 3)))
        return logits

    def arrays(self) -> Arrays:
        """Its weights, by the names that they have beside those of a front half."""
        return {HEAD + name: weight.detach().numpy() for name, weight in self.named_parameters()}


def local_graph(
    head: LocalHead, shape: tuple[int, ...], codec: FeatureCodec, tables: Arrays, provider: str = CPU
) -> tuple[bytes, GraphSpec]:
    """The graph local.onnx of `head` for features of `shape` (C,h,w), in the form for `provider`, and its spec.

    Inputs: "feature" (n,C,h,w), channels in coded order, and "labels" (n,classes), one-hot, float32 both. Outputs:
    "loss" (1,), the mean cross entropy; "gradient" (n,C,h,w), of that loss at the feature; and "gradient.WEIGHT" for
    each weight of the head, which are held inputs. ExportError for what `provider` does not take.
    """
    graph, weights = Graph(), head.arrays()
    classes, filters = head.linear.weight.shape
    channels, height, width = shape
    feature = graph.input(TensorSpec("feature", "float32", (BATCH, channels, height, width)))
    labels = graph.input(TensorSpec("labels", "float32", (BATCH, classes)))
    graph.in_layer(HEAD.rstrip("."))
    x = ordered(graph, feature, codec, tables, back=True)
    names = [graph.weight(name, value) for name, value in weights.items()]
    conv, linear = names[:2], names[2:]
    seen = (BATCH, filters, (height - 1) // 2 + 1, (width - 1) // 2 + 1)
    y = graph.op("Conv", [x, *conv], seen, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = graph.op("ReduceMean", [graph.op("Relu", [y], seen)], (BATCH, filters), axes=[2, 3], keepdims=0)
    logits = graph.op("Gemm", [y, *linear], (BATCH, classes), transB=1)

    likely = graph.op("LogSoftmax", [logits], (BATCH, classes), axis=1)
    right = graph.with_axes("ReduceSum", graph.op("Mul", [likely, labels], (BATCH, classes)), (BATCH,), [1], keepdims=0)
    loss = graph.op("Neg", [graph.op("ReduceMean", [right], (1,), axes=[0], keepdims=1)], (1,))
    # The gradient at the logits is written by hand: softmax less labels, over the images, whose number is the sum of
    # all labels. A mean over the batch has no gradient rule.
    count = graph.with_axes("ReduceSum", labels, (1, 1), [0, 1], keepdims=1)
    off = graph.op("Sub", [graph.op("Exp", [likely], (BATCH, classes)), labels], (BATCH, classes))
    computed = differentiate(graph, logits, graph.op("Div", [off, count], (BATCH, classes)), [*weights, x])
    results = {
        "loss": loss,
        "gradient": ordered(graph, computed[x], codec, tables),
        **{f"gradient.{name}": computed[name] for name in weights},
    }
    outputs = [graph.add("Identity", [value], graph.shape(value), outputs=[name])[0] for name, value in results.items()]
    if provider != CPU:
        make_portable(graph)
    model, spec = graph.model(outputs, held=graph.weights, file=f"{LOCAL}.onnx")
    if provider != CPU:
        check_learning(onnx.ModelProto.FromString(model), provider, graph.layers)
    return model, spec

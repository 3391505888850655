"""How long the graphs that learn take against PyTorch, and which of their forms is the fastest.

``python bench/front_graphs.py [--models A,B] [--out FILE]``: per model, its front half at the default cut, 32 images of
3x32x32 on one core, alternately: forward with weights as constants and as inputs, a new session, the gradient fed with
saved activations and recomputing them, the deployed graph, and PyTorch. Medians and quartiles in milliseconds of the
processor, as JSON, and `of_pytorch`: forward with weights as inputs and gradient fed, over PyTorch's forward and backward.

Every model is measured in a process of its own, twice: with the C library's usual allocator, which gives large tensors
back to the system and takes them again at every step, and with one that keeps them (`memory kept`). PyTorch pays for
that at every layer, ONNX Runtime hardly: it keeps memory itself.

``--table FILE`` prints a record as a table.
"""

import copy
from collections.abc import Callable
from typing import Any

import record
import torch
from arguments import Arguments
from deployed import engine
from timing import measure

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.export.graphs import front_graphs, learning_graph
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split
from edgekit.runtime.backends.onnxruntime import OnnxRuntime

SHAPE = (3, 32, 32)


def variants(name: str, batch: int) -> dict[str, Callable[[], Any]]:
    """What is timed for model `name`."""
    front, _ = split(build(name, SHAPE, 10, 0), MODELS[name].cut)
    image = torch.randn(batch, *SHAPE)
    network = copy.deepcopy(front).train()
    feature = network(image)
    upstream = torch.randn_like(feature)
    codec = feature_codec("sgq", {})
    tables = codec.calibrate(feature.detach().numpy(), 0)
    graphs = front_graphs(front, SHAPE, codec, tables)
    state: Arrays = {key: value.numpy() for key, value in front.state_dict().items()}
    given: Arrays = {"image": image.numpy(), "gradient": upstream.numpy(), **codec.table_feeds(tables)}
    held = {**given, **state}
    learning = learning_graph(front, SHAPE, codec, tables)
    outputs = [s.name for s in graphs.specs["front_train"].outputs]
    books = list(codec.table_feeds(tables))
    as_constants = engine(*learning.graph.model(outputs, held=books, file="constants.onnx"), held)
    recomputing = engine(
        *learning.graph.model(learning.gradients, held=learning.graph.weights, file="recompute.onnx"), held
    )
    deployed, train, grad = (
        engine(graphs.models[f"{key}.onnx"], graphs.specs[key], held) for key in ("front", "front_train", "front_grad")
    )
    fed = {**train.run({"image": given["image"]}), **given}
    constants = {s.name: state[s.name] for s in as_constants.graph.constants}

    def run(engine: OnnxRuntime) -> Callable[[], Arrays]:
        feeds = {s.name: fed[s.name] for s in engine.graph.inputs}
        return lambda: engine.run(feeds)

    return {
        "deployed": run(deployed),
        "forward, weights as constants": run(as_constants),
        "forward, weights as inputs": run(train),
        "new session": lambda: as_constants.set_weights(constants),
        "gradient, saved activations": run(grad),
        "gradient, recomputing": run(recomputing),
        "pytorch forward": lambda: network(image),
        "pytorch forward and backward": lambda: network(image).backward(upstream),
    }


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models="vgg11,mobilenet_v1,resnet18", batch=32, repeats=15, out=None)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    made = {
        **record.head("torch", "numpy", "onnxruntime"),
        "batch": options.batch,
        "models": {name: measure(variants(name, options.batch), options.repeats) for name in options.models.split(",")},
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

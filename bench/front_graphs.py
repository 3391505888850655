"""How weights should reach the training graphs, and whether the gradient graph should recompute the forward pass.

``python bench/front_graphs.py [--models A,B] [--out FILE]``: per model, its front half at the default cut, 32 images of
3x32x32 on one core, alternately: forward with weights as constants and as inputs, a new session, the gradient fed with
saved activations and recomputing them, the deployed graph, and PyTorch. Medians and quartiles in milliseconds, as JSON.
"""

import argparse
import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from record import finish

from edgekit.bundle import GraphSpec
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

    def engine(model: bytes, spec: GraphSpec) -> OnnxRuntime:
        backend = OnnxRuntime(model, spec)
        backend.set_weights({s.name: (state if s.name in state else given)[s.name] for s in spec.held})
        return backend

    def feeds(spec: GraphSpec, saved: Arrays) -> Arrays:
        return {s.name: (given if s.name in given else saved)[s.name] for s in spec.inputs}

    learning = learning_graph(front, SHAPE, codec, tables)
    outputs = [s.name for s in graphs.specs["front_train"].outputs]
    books = list(codec.table_feeds(tables))
    as_constants = engine(*learning.graph.model(outputs, held=books, file="constants.onnx"))
    recomputing = engine(*learning.graph.model(learning.gradients, held=learning.graph.weights, file="recompute.onnx"))
    deployed, train, grad = (
        engine(graphs.models[f"{key}.onnx"], graphs.specs[key]) for key in ("front", "front_train", "front_grad")
    )
    saved = train.run({"image": given["image"]})
    constants = {s.name: state[s.name] for s in as_constants.graph.constants}

    def pytorch() -> None:
        network(image).backward(upstream)

    return {
        "deployed": lambda: deployed.run({"image": given["image"]}),
        "forward, weights as constants": lambda: as_constants.run({"image": given["image"]}),
        "forward, weights as inputs": lambda: train.run({"image": given["image"]}),
        "new session": lambda: as_constants.set_weights(constants),
        "gradient, saved activations": lambda: grad.run(feeds(grad.graph, saved)),
        "gradient, recomputing": lambda: recomputing.run(feeds(recomputing.graph, {})),
        "pytorch forward": lambda: network(image),
        "pytorch forward and backward": pytorch,
    }


def alternate(
    functions: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, np.ndarray]:
    """Milliseconds (repeats,) of each, everything once in every round, after two rounds of warm-up.

    Every round has an order of its own: what runs before leaves caches and heap in a state that counts.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    rng = np.random.default_rng(0)
    for i in range(repeats + 2):
        for name in rng.permutation(list(functions)):
            start = clock()
            functions[name]()
            if i >= 2:
                times[name].append(1e3 * (clock() - start))
    return {name: np.array(values) for name, values in times.items()}


def measure(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Medians and quartiles."""
    rows = {}
    for name, values in alternate(functions, repeats).items():
        low, median, high = statistics.quantiles(values.tolist(), n=4)
        rows[name] = {"median_ms": round(median, 2), "quartile1_ms": round(low, 2), "quartile3_ms": round(high, 2)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="vgg11,mobilenet_v1,resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    result: dict[str, Any] = {
        "command": ["python", *sys.argv],
        "versions": {**versions, "onnxruntime": onnxruntime.__version__},
        "batch": options.batch,
        "models": {name: measure(variants(name, options.batch), options.repeats) for name in options.models.split(",")},
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()

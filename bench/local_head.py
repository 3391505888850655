"""What the local loss costs a device: its graph beside the other graphs of a step.

``python bench/local_head.py [--models A,B] [--out FILE]``: per model, its front half at the default cut (or at that of
MODEL@LAYER), 32 images of 3x32x32 and 10 classes on one core. "step" is the forward pass and the gradient graph of the
front half as a device runs them; "local" is the graph of the local loss, the sum of both gradients, and the optimiser's
step on the head's weights, which the engine then has. They take turns in one process, and CPU time is
measured. ``--show FILE`` prints the table of such a record.

Weights are those of the head, which rounds of averaging send with those of the front half.
"""

import copy
import time
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from deployed import engine
from timing import alternate, quartiles

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.export.graphs import front_graphs
from edgekit.export.local_head import LocalHead
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split
from edgekit.runtime.local_loss import added, one_hot
from edgekit.runtime.optim import optimizer

SHAPE = (3, 32, 32)
BATCH, CLASSES = 32, 10
WEIGHT = 0.5


def bench(model: str, repeats: int) -> dict[str, Any]:
    """The record of one model, "NAME" or "NAME@LAYER"."""
    name, _, layer = model.partition("@")
    front, _ = split(build(name, SHAPE, CLASSES, 0), layer or MODELS[name].cut)
    image = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    feature = copy.deepcopy(front).train()(image).detach()
    codec = feature_codec("sgq", {})
    tables = codec.calibrate(feature.numpy(), 0)
    head = LocalHead(feature.shape[1], CLASSES, 0)
    graphs = front_graphs(front, SHAPE, codec, tables, head=head)
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal(feature.shape, dtype=np.float32)
    held = {**graphs.state, **graphs.head, **codec.table_feeds(tables)}
    train, grad, local = (
        engine(graphs.models[f"{key}.onnx"], graphs.specs[key], held) for key in ("front_train", "front_grad", "local")
    )
    coded = train.run({"image": image.numpy()})[graphs.feature].copy()
    labels = rng.integers(0, CLASSES, BATCH)
    sgd = optimizer("sgd", {"momentum": 0.9, "weight_decay": 5e-4})
    weights = {name: array.copy() for name, array in graphs.head.items()}

    def step() -> Arrays:
        fed = {**train.run({"image": image.numpy()}), "image": image.numpy(), "gradient": gradient}
        return grad.run({spec.name: fed[spec.name] for spec in grad.graph.inputs})

    def add_local() -> np.ndarray:
        found = local.run({"feature": coded, "labels": one_hot(labels, CLASSES)})
        sgd.step(weights, {name: found[f"gradient.{name}"] for name in weights}, 1e-3)
        local.set_weights(weights)
        return added(gradient, found["gradient"], WEIGHT)

    times = alternate({"step": step, "local": add_local}, repeats, time.process_time)
    return {
        "feature": list(feature.shape[1:]),
        "weights": sum(array.size for array in graphs.head.values()),
        "weights_of_front": sum(weight.numel() for weight in front.parameters()),
        **{label: quartiles(ms, 2) for label, ms in times.items()},
        "share": round(float(np.median(times["local"] / times["step"])), 3),
    }


def table(made: dict[str, Any]) -> str:
    """The record as a table in Markdown."""
    rows = [
        [
            name.replace("@", ", "), "x".join(map(str, cell["feature"])), f"{cell['step']['median_ms']:.1f}",
            f"{cell['local']['median_ms']:.1f}", f"{cell['share']:.2f}", f"{cell['weights_of_front']:,}",
            f"{cell['weights']:,}",
        ]
        for name, cell in made["models"].items()
    ]  # fmt: skip
    heads = ["front half", "feature", "ms a step", "ms local", "share", "weights", "weights of the head"]
    return markdown.table(heads, rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models="vgg11_thin,vgg11_thin@features.10,mobilenet_v1,resnet18", repeats=25)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    made = {
        **record.head("numpy", "onnxruntime"),
        "batch": BATCH,
        "models": {model: bench(model, options.repeats) for model in options.models.split(",")},
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

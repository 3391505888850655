"""What a device's step costs when only the last layers of its front half learn.

``python bench/train_layers.py [--models A,B] [--layers 1,2,4] [--out FILE]``: per model, its front half at the default
cut, 32 images of 3x32x32 on one core; forward pass and gradient graph as a device runs them, alternately with all
layers learning. ``--show FILE`` prints the table of such a record.

"activations" are what is kept of the forward pass for the gradient graph, of one image; "round" is what the codec
`quantised` makes of an update of all weights that learn, one way.
"""

import copy
from collections.abc import Callable
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from deployed import engine
from timing import alternate, quartiles

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec, update_codec
from edgekit.export.freeze import freeze_all_but
from edgekit.export.graphs import front_graphs
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split

SHAPE = (3, 32, 32)
BATCH = 32
ALL = "all"


def step(name: str, last: int | None) -> tuple[Callable[[], Arrays], dict[str, int]]:
    """A step of model `name` of which the `last` layers learn, None for all; and what it needs, in bytes."""
    front, _ = split(build(name, SHAPE, 10, 0), MODELS[name].cut)
    if last:
        freeze_all_but(front, last)
    image = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    feature = copy.deepcopy(front).train()(image)
    codec = feature_codec("sgq", {})
    tables = codec.calibrate(feature.detach().numpy(), 0)
    graphs = front_graphs(front, SHAPE, codec, tables)
    given: Arrays = {"image": image.numpy(), "gradient": np.ones(feature.shape, np.float32), **graphs.state}
    given |= codec.table_feeds(tables)
    train, grad = (
        engine(graphs.models[f"{key}.onnx"], graphs.specs[key], given) for key in ("front_train", "front_grad")
    )

    def run() -> Arrays:
        fed = {**train.run({"image": given["image"]}), **given}
        return grad.run({spec.name: fed[spec.name] for spec in grad.graph.inputs})

    rng = np.random.default_rng(0)
    update = {spec.name: 1e-3 * rng.standard_normal(spec.shape, np.float32) for spec in grad.graph.outputs}
    kept = [spec for spec in grad.graph.inputs if spec.name not in ("image", "gradient")]
    return run, {
        "activations": sum(4 * int(np.prod(spec.shape[1:])) for spec in kept),
        "weights": sum(array.size for array in update.values()),
        "round": len(update_codec("quantised", {}).pack(update, rng)),
    }


def bench(name: str, layers: list[int], repeats: int) -> dict[str, Any]:
    """The record of one model."""
    steps = {ALL if last is None else str(last): step(name, last) for last in (None, *layers)}
    times = alternate({label: run for label, (run, _) in steps.items()}, repeats)
    return {
        label: {
            **quartiles(times[label], 2),
            "of_all": round(float(np.median(times[label] / times[ALL])), 3),
            **needs,
        }
        for label, (_, needs) in steps.items()
    }


def table(made: dict[str, Any]) -> str:
    """The record as a table in Markdown."""
    rows = [
        [
            name, label, f"{cell['median_ms']:.1f}", f"{cell['of_all']:.2f}", f"{cell['activations'] / 1024:,.0f}",
            f"{cell['weights']:,}", f"{cell['round'] / 1024:.1f}",
        ]
        for name, cells in made["models"].items()
        for label, cell in cells.items()
    ]  # fmt: skip
    heads = ["front half", "layers that learn", "ms a step", "of all", "activations KiB", "weights", "round KiB"]
    return markdown.table(heads, rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models="mobilenet_v1,mobilenet_v2,resnet18", layers="1,2,4", repeats=15)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    layers = [int(count) for count in options.layers.split(",")]
    made = {
        **record.head("numpy", "onnxruntime"),
        "batch": BATCH,
        "models": {name: bench(name, layers, options.repeats) for name in options.models.split(",")},
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

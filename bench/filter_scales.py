"""What a scale of each filter could learn along with the weights, and what its gradient costs a device.

``python bench/filter_scales.py [--models A,B] [--out FILE]``: per model its front half at the default cut, 32 images of
digits, one core, the graphs that a device runs. d loss / d scale is, of each filter, the product of the gradient with
the filter, added up. "along" is its magnitude over that of both lengths, the mean over filters weighted by the
gradient's length: 0 where no scale can learn, 1 where the whole gradient is that of the scale. "by chance" is what
directions drawn at random would come to. ``--show FILE`` prints the table of such a record.
"""

import copy
import math
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments
from deployed import engine
from timing import alternate, quartiles
from torch.nn.functional import cross_entropy

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.data import images, registry
from edgekit.export.fold import settle_norms
from edgekit.export.graphs import front_graphs
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split

SHAPE, BATCH = (1, 32, 32), 32


def scale_gradients(gradients: Arrays, weights: Arrays) -> Arrays:
    """(filters,) f32 of each weight of two dimensions or more: d loss / d scale, where the scales are 1."""
    return {
        name: np.einsum("ij,ij->i", gradient.reshape(len(gradient), -1), weights[name].reshape(len(gradient), -1))
        for name, gradient in gradients.items()
        if gradient.ndim > 1
    }


def along(gradients: Arrays, weights: Arrays) -> tuple[float, float]:
    """How much of `gradients` lies along the filters, and how much of random directions would."""
    shares, chances, lengths = [], [], []
    for name, scales in scale_gradients(gradients, weights).items():
        rows, filters = (each[name].reshape(len(scales), -1) for each in (gradients, weights))
        length = np.linalg.norm(rows, axis=1)
        shares.append(np.abs(scales) / np.maximum(length * np.linalg.norm(filters, axis=1), 1e-30))
        chances.append(np.full(len(scales), math.sqrt(2 / (math.pi * rows.shape[1]))))
        lengths.append(length)
    weight = np.concatenate(lengths)
    return tuple(float(np.average(np.concatenate(each), weights=weight)) for each in (shares, chances))  # type: ignore[return-value]


def bench(name: str, norm: str, repeats: int) -> dict[str, Any]:
    """The record of one model, its batch norms with the batch's statistics ("batch") or "frozen"."""
    front, back = split(build(name, SHAPE, 10, 0), MODELS[name].cut)
    digits = images.fit(registry.load("digits", None, None, 0), SHAPE)
    mean, std = np.float32(digits.mean[0]), np.float32(digits.std[0])
    image = (digits.train_images[:BATCH].astype(np.float32) / 255 - mean) / std
    settle_norms(front, torch.from_numpy(image))
    with torch.no_grad():
        feature = copy.deepcopy(front).train(norm == "batch")(torch.from_numpy(image))
    codec = feature_codec("sgq", {})
    tables = codec.calibrate(feature.numpy(), 0)
    graphs = front_graphs(front, SHAPE, codec, tables, norm=norm)
    held = {**graphs.state, **codec.table_feeds(tables)}
    train, grad = (
        engine(graphs.models[f"{key}.onnx"], graphs.specs[key], held) for key in ("front_train", "front_grad")
    )
    coded = torch.from_numpy(train.run({"image": image})[graphs.feature]).requires_grad_()
    network_order = torch.from_numpy(np.argsort(codec.order(feature.shape[1], tables)))
    labels = torch.from_numpy(digits.train_labels[:BATCH].astype(np.int64))
    loss = cross_entropy(back.train()(coded[:, network_order].clone()), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert coded.grad is not None
    gradient = coded.grad.numpy()

    def step() -> Arrays:
        fed = {**train.run({"image": image}), **held, "image": image, "gradient": gradient}
        found = grad.run({spec.name: fed[spec.name] for spec in grad.graph.inputs})
        return {key[len("gradient.") :]: array for key, array in found.items()}

    gradients = step()
    times = alternate({"step": step, "scales": lambda: scale_gradients(gradients, graphs.state)}, repeats)
    share, chance = along(gradients, graphs.state)
    return {
        "norm": norm, "filters": sum(map(len, scale_gradients(gradients, graphs.state).values())), "along": share,
        "by_chance": chance, **{key: quartiles(each, 3) for key, each in times.items()},
    }  # fmt: skip


def table(made: dict[str, Any]) -> str:
    """The record as a table in Markdown."""
    rows = [
        [
            name, cell["norm"], str(cell["filters"]), f"{cell['along']:.2g}", f"{cell['by_chance']:.2g}",
            f"{cell['step']['median_ms']:.2f}", f"{cell['scales']['median_ms']:.3f}",
        ]
        for name, cells in made["models"].items()
        for cell in cells
    ]  # fmt: skip
    heads = ["front half", "batch norm", "filters", "along", "by chance", "ms a step", "ms of scales"]
    return markdown.table(heads, rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models="vgg11_thin,mobilenet_v1,resnet18", norms="batch,frozen", repeats=15)
    options = arguments.parse_or_show(table)
    torch.set_num_threads(1)
    made = {
        **record.head("numpy", "onnxruntime", "torch"),
        "batch": BATCH,
        "models": {
            name: [bench(name, norm, options.repeats) for norm in options.norms.split(",")]
            for name in options.models.split(",")
        },
    }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

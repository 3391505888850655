"""What `edgekit plan` predicts, and whether the line agrees.

``python bench/plan.py [--out FILE]``: the best cut of three models on three boards behind three links, as JSON.
``python bench/plan.py --markdown RECORD``: such a record as a table.
``python bench/plan.py --validate MODEL [--cuts LAYER,...] [--out FILE]``: cuts measured in turn by `edgekit train` (one
device process and a server over loopback, one epoch of digits) against the order that the plan predicts for them from
front halves timed on this host (``--device cpu --measure``); Spearman's rank correlation.
"""

import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import markdown
import numpy as np
import record
import torch
from arguments import Arguments

from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.device_profiles.registry import profile
from edgekit.export.models.registry import build, default_cut
from edgekit.export.named import default_shape
from edgekit.export.plan.cuts import chosen, cut_table
from edgekit.export.plan.named import plan_named
from edgekit.export.plan.observe import Trial, observe, sample_images
from edgekit.export.plan.predict import predict
from edgekit.export.plan.settings import Compared, PlannedStep, Timing
from edgekit.export.settings import NamedData, NamedNetwork
from edgekit.launch.settings import Training
from edgekit.launch.train import train
from edgekit.link.link import parse_link

MODELS = ("mobilenet_v1", "resnet18", "vgg11")
BOARDS = ("jetson-nano", "jetson-orin-nano", "atlas-200-dk")
LINKS = ("1mbit,20ms", "10mbit,20ms", "100mbit,20ms")
SHAPE = (3, 32, 32)
#: Loopback: what the line is measured over.
LOOPBACK = "10gbit,100us"


def show(model: str, text: str) -> None:
    sys.stderr.write(f"{model} {text}\n")


def best_cuts(models: Sequence[str], batch: int, server: torch.device) -> list[dict[str, Any]]:
    """The best cut of every model on every board behind every link, and the default cut beside it."""
    codec = feature_codec("sgq", {})
    images = sample_images(SHAPE, batch, 0, registry.load("digits", None))
    rows = []
    for model in models:
        network, default = build(model, SHAPE, 10, 0), default_cut(model)
        cuts = chosen(cut_table(network, SHAPE, codec), default)
        trial = Trial(images, 10, codec, [profile(board) for board in BOARDS], server=server)
        observed, _ = observe(network, cuts, trial, partial(show, model))
        for board in BOARDS:
            for link in LINKS:
                ranked = predict(observed, profile(board), parse_link(link), 1)
                (usual,) = (each for each in ranked if each.cut.layer == default)
                rows.append({"model": model, "board": board, "link": link, "best": ranked[0].to_json()})
                rows[-1]["default"] = usual.to_json()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line per model and board: per link the best cut, its images/s, and what binds."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        best, usual = row["best"], row["default"]["images_per_s"]
        text = f"`{best['cut']['layer']}` {best['images_per_s']:.0f}/s, {best['binds']} (default {usual:.0f}/s)"
        cells.setdefault((row["model"], row["board"]), []).append(text)
    links = dict.fromkeys(row["link"] for row in rows)
    return markdown.table(["model", "board", *links], [[*key, *texts] for key, texts in cells.items()])


def line(model: str, cut: str, limit: int, batch: int) -> float:
    """Images per second of one epoch of `edgekit train` with one device."""
    data, training = NamedData("digits", limit=limit, n_images=64), Training(devices=1, epochs=1, batch=batch)
    return float(train(NamedNetwork(model, cut), data=data, training=training)["images_per_s"])


def validate(model: str, layers: Sequence[str], limit: int, batch: int, repeats: int) -> dict[str, Any]:
    """Predicted and measured images/s per cut, and how well their orders agree."""
    digits = registry.load("digits", None)
    shape, codec = default_shape(digits), feature_codec("sgq", {})
    if not layers:
        cuts = chosen(cut_table(build(model, shape, 10, 0), shape, codec), default_cut(model))
        layers = [cut.layer for cut in cuts][:: max(1, len(cuts) // 6)]
    setting = PlannedStep("cpu", LOOPBACK, codec, batch=batch)
    measured: dict[str, list[float]] = {layer: [] for layer in layers}
    predicted: dict[str, list[float]] = {layer: [] for layer in layers}
    for _ in range(repeats):
        result = plan_named(NamedNetwork(model), setting, Compared(layers), Timing(measure=True), dataset=digits)
        for each in result.predictions:
            predicted[each.cut.layer].append(each.images_per_s)
        for layer in layers:
            measured[layer].append(line(model, layer, limit, batch))
            show(model, f"{layer}: predicted {predicted[layer][-1]:.1f}, measured {measured[layer][-1]:.1f} images/s")
    medians = [[statistics.median(values[layer]) for layer in layers] for values in (predicted, measured)]
    return {
        "model": model,
        "input": shape,
        "limit": limit,
        "batch": batch,
        "predicted_images_per_s": predicted,
        "measured_images_per_s": measured,
        "spearman": spearman(*medians),
        "median_ratio_predicted_to_measured": {
            layer: round(p / m, 3) for layer, p, m in zip(layers, *medians, strict=True)
        },
    }


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation of the ranks of two lists without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    correlation: Any = np.corrcoef(ranks)
    return float(correlation[0, 1])


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=",".join(MODELS), validate=None, cuts="", limit=512, batch=32, repeats=3)
    arguments.add("where the server's half is timed: cpu or cuda", torch_device="cpu")
    arguments.add(server_threads=1, markdown=None, out=None)
    options = arguments.parse_args()
    if options.markdown:
        sys.stdout.write(table(record.read(options.markdown)["rows"]) + "\n")
        return
    torch.set_num_threads(options.server_threads)
    made = record.head("torch", "numpy", "onnxruntime")
    if options.validate:
        layers = options.cuts.split(",") if options.cuts else []
        made |= validate(options.validate, layers, options.limit, options.batch, options.repeats)
    else:
        made |= {
            "input": SHAPE,
            "batch": options.batch,
            "images": "digits, scaled to the input shape",
            "device_time": "roofline of each board's peak figures: a lower bound",
            "server_time": f"measured on this host, {options.torch_device}, {options.server_threads} threads",
            "rows": best_cuts(options.models.split(","), options.batch, torch.device(options.torch_device)),
        }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

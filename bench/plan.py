"""What `edgekit plan` predicts, and whether the line agrees.

``python bench/plan.py [--out FILE]``: the best cut of three models on three boards behind three links, as JSON.
``python bench/plan.py --markdown RECORD``: such a record as a table.
``python bench/plan.py --validate MODEL [--cuts LAYER,...] [--out FILE]``: cuts measured in turn by `edgekit train` (one
device process and a server over loopback, one epoch of digits) against the order that the plan predicts for them from
front halves timed on this host (``--device cpu --measure``); Spearman's rank correlation.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import torch
from record import finish

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
from edgekit.export.settings import NamedNetwork
from edgekit.link.link import parse_link

MODELS = ("mobilenet_v1", "resnet18", "vgg11")
BOARDS = ("jetson-nano", "jetson-orin-nano", "atlas-200-dk")
LINKS = ("1mbit,20ms", "10mbit,20ms", "100mbit,20ms")
SHAPE = (3, 32, 32)
#: Loopback: what the line is measured over.
LOOPBACK = "10gbit,100us"


def show(text: str) -> None:
    sys.stderr.write(text + "\n")


def told(model: str, layer: str) -> None:
    show(f"{model} {layer}")


def table(models: Sequence[str], batch: int, server: torch.device) -> list[dict[str, Any]]:
    """The best cut of every model on every board behind every link, and the default cut beside it."""
    codec = feature_codec("sgq", {})
    images = sample_images(SHAPE, batch, 0, registry.load("digits", None))
    rows = []
    for model in models:
        network, default = build(model, SHAPE, 10, 0), default_cut(model)
        cuts = chosen(cut_table(network, SHAPE, codec), default)
        trial = Trial(images, 10, codec, [profile(board) for board in BOARDS], server=server)
        observed, _ = observe(network, cuts, trial, partial(told, model))
        for board in BOARDS:
            for link in LINKS:
                ranked = predict(observed, profile(board), parse_link(link), 1)
                (usual,) = (each for each in ranked if each.cut.layer == default)
                rows.append({"model": model, "board": board, "link": link, "best": ranked[0].to_json()})
                rows[-1]["default"] = usual.to_json()
    return rows


def markdown(record: dict[str, Any]) -> str:
    """One line per model and board; per link the best cut, its images/s, and what binds."""
    links = list(dict.fromkeys(row["link"] for row in record["rows"]))
    lines = [f"| model | board | {' | '.join(links)} |", "|" + "---|" * (2 + len(links))]
    cells: dict[tuple[str, str], list[str]] = {}
    for row in record["rows"]:
        best, usual = row["best"], row["default"]["images_per_s"]
        text = f"`{best['cut']['layer']}` {best['images_per_s']:.0f}/s, {best['binds']} (default {usual:.0f}/s)"
        cells.setdefault((row["model"], row["board"]), []).append(text)
    lines += [f"| {model} | {board} | {' | '.join(texts)} |" for (model, board), texts in cells.items()]
    return "\n".join(lines)


def line(model: str, cut: str, limit: int, batch: int) -> float:
    """Images per second of one epoch of `edgekit train` with one device."""
    command = [
        *(sys.executable, "-m", "edgekit", "train", model, "--cut", cut, "--dataset", "digits", "--limit", str(limit)),
        *("--epochs", "1", "--batch", str(batch), "--devices", "1", "--calibration", "64", "--json"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return float(json.loads(done.stdout)["images_per_s"])


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
            show(f"{model} {layer}: predicted {predicted[layer][-1]:.1f}, measured {measured[layer][-1]:.1f} images/s")
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--validate", metavar="MODEL")
    parser.add_argument("--cuts", default="", metavar="LAYER,...")
    parser.add_argument("--limit", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--torch-device", default="cpu", help="where the server's half is timed: cpu or cuda")
    parser.add_argument("--server-threads", type=int, default=1)
    parser.add_argument("--markdown", metavar="RECORD")
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.markdown:
        with open(options.markdown, encoding="utf-8") as file:
            sys.stdout.write(markdown(json.load(file)) + "\n")
        return
    torch.set_num_threads(options.server_threads)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    record: dict[str, Any] = {
        "command": ["python", *sys.argv],
        "versions": {**versions, "onnxruntime": onnxruntime.__version__},
    }
    if options.validate:
        layers = options.cuts.split(",") if options.cuts else []
        record |= validate(options.validate, layers, options.limit, options.batch, options.repeats)
    else:
        record |= {
            "input": SHAPE,
            "batch": options.batch,
            "images": "digits, scaled to the input shape",
            "device_time": "roofline of each board's peak figures: a lower bound",
            "server_time": f"measured on this host, {options.torch_device}, {options.server_threads} threads",
            "rows": table(options.models.split(","), options.batch, torch.device(options.torch_device)),
        }
    finish(record, options.out)


if __name__ == "__main__":
    main()

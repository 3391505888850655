"""How fast feature codecs are, as a rate and as a share of the front half's time, beside faiss and zlib.

``python bench/feature_codecs.py [--models A,B] [--data DIR] [--batch 32] [--repeats 40] [--out FILE]``: per model one
batch of real images (CIFAR-10 from DIR, or digits), whose features every codec gets, in one process, one thread each of
ONNX Runtime, PyTorch, numpy and faiss. Rounds in which everything runs once, in an order of their own; medians and
quartiles of the process's CPU time, in which other processes do not count and a second thread would ("cores_used" is
its share of the time that passed). The record goes to FILE and to standard output, a table to standard error.

========  ==============================================================================================================
stage     what is timed
========  ==============================================================================================================
quantise  in ONNX Runtime: "in front" the deployed graph less, round by round, the same graph that gives out the feature
          (which takes its time too); "alone" the encoder and the order of channels as a graph fed with the feature
pack      indices to bytes; coded streams have learnt from the batches before
unpack    bytes to indices
decode    indices to feature: the numpy reference, and the server's twin in PyTorch
faiss     ProductQuantizer.compute_codes, which quantises and packs, with the codebooks of `product`; its rows are
          gathered beforehand, and that is not timed
zlib      level 6, of the packed codes of `uniform` and of the float32 feature
========  ==============================================================================================================
"""

import sys
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import numpy as np
import record
import torch
from arguments import Arguments
from deployed import engine, quantise_stage
from entropy import model_bits
from threadpoolctl import threadpool_limits
from timing import alternate, quartiles
from torch import nn

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.features.product import Product
from edgekit.codecs.registry import feature_codec
from edgekit.data import registry
from edgekit.export.fold import fold_norms, settle_norms
from edgekit.export.graphs import front_graphs
from edgekit.export.models.registry import build
from edgekit.export.plan.observe import sample_images
from edgekit.export.split import split
from edgekit.server.decode import decode

SHAPE = (3, 32, 32)
CUTS = {"mobilenet_v1": "blocks.3.depthwise", "vgg11_thin": "features.10"}
CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform 4": ("uniform", {"bits": 4}),
    "slicing 4": ("slicing", {"bits": 4}),
    "topk 4": ("topk", {"bits": 4}),
    "product 8x4": ("product", {"groups": 8, "bits": 4}),
    "sgq 8x4": ("sgq", {"groups": 8, "bits": 4}),
    "sgq 4x4": ("sgq", {"groups": 4, "bits": 4}),
    "sgq 8x4 context": ("sgq", {"groups": 8, "bits": 4, "coding": "context"}),
    "sgq 4x4 context": ("sgq", {"groups": 4, "bits": 4, "coding": "context"}),
    "sgq 8x4 gathered": ("sgq", {"groups": 8, "bits": 4}),
}
#: The end of a label whose deployed graph orders the channels by a Gather and takes its codebooks as inputs.
GATHERED = " gathered"
#: Stages of the table, and their short names.
SHOWN = {
    "quantise, alone": "alone", "quantise, in front": "in front", "pack": "pack", "unpack": "unpack",
    "decode, numpy": "numpy", "decode, torch": "torch",
}  # fmt: skip
BOTH = "quantise, in front, and pack"
#: The front half without a codec: as deployed; and forward and gradient, as a device learns.
FRONT = ("front", "learning")
#: Images that tables come from, and batches that a stream has learnt from.
CALIBRATION = 256
LEARNT = 20
Functions = dict[str, Callable[[], Any]]


class Front(NamedTuple):
    """A front half, folded as it is deployed, and one batch: `image` (n,3,32,32), `feature` (n,C,h,w) f32."""

    half: nn.Module
    folded: nn.Module
    image: np.ndarray
    feature: np.ndarray
    #: Features that tables are calibrated with, and those of batches that streams learn from.
    calibration: np.ndarray
    before: list[np.ndarray]


def front_of(model: str, data: str | None, batch: int) -> Front:
    dataset = registry.load("cifar10" if data else "digits", data)
    images = sample_images(SHAPE, CALIBRATION + (LEARNT + 1) * batch, 0, dataset)
    half, _ = split(build(model, SHAPE, 10, 0), CUTS[model])
    settle_norms(half, torch.from_numpy(images[:CALIBRATION]))
    folded, _ = fold_norms(half)
    with torch.no_grad():
        features = np.concatenate([folded(part).numpy() for part in torch.split(torch.from_numpy(images), batch)])
    *before, feature = np.split(features[CALIBRATION:], LEARNT + 1)
    return Front(half, folded, images[-batch:], feature, features[:CALIBRATION], before)


def front_functions(front: Front) -> Functions:
    """Those of `FRONT`."""
    raw = feature_codec("raw", {})
    graphs = front_graphs(front.half, SHAPE, raw, {})
    train, grad = (
        engine(graphs.models[f"{key}.onnx"], graphs.specs[key], graphs.state) for key in ("front_train", "front_grad")
    )
    gradient = np.random.default_rng(0).standard_normal(front.feature.shape, dtype=np.float32)

    def learn() -> None:
        saved = {**train.run({"image": front.image}), "image": front.image, "gradient": gradient}
        grad.run({each.name: saved[each.name] for each in grad.graph.inputs})

    return dict(zip(FRONT, (quantise_stage(front.folded, front.image, raw, {}), learn), strict=True))


class Coded(NamedTuple):
    """One codec, with what it makes of the front half's batch."""

    codec: FeatureCodec
    tables: Arrays
    payload: bytes
    #: What the model of an entropy coded stream says that the codes take.
    model_bits: float
    functions: Functions


def coded(codec: FeatureCodec, front: Front, gathered: bool = False) -> Coded:
    tables = codec.calibrate(front.calibration, 0)
    shape = front.feature.shape
    order = codec.order(shape[1], tables)
    deployed, alone = (
        quantise_stage(half, given, codec, tables, gathered)
        for half, given in ((front.folded, front.image), (nn.Identity(), front.feature))
    )
    codes, sender, receiver = alone(), codec.stream(), codec.stream()
    for feature in front.before:
        earlier = codec.quantize(feature[:, order], tables)
        sender.update(earlier)
        receiver.update(earlier)
    payload = sender.pack(codes)
    arrived, _ = receiver.unpack(payload, shape)
    functions: Functions = {
        "deployed": deployed,
        "quantise, alone": alone,
        "pack": lambda: sender.pack(codes),
        "unpack": lambda: receiver.unpack(payload, shape),
        "decode, numpy": lambda: codec.dequantize(arrived, tables),
        "decode, torch": lambda: decode(codec, arrived, tables, torch.device("cpu")),
    }
    return Coded(codec, tables, payload, model_bits(sender, codes), functions)


def other_functions(front: Front, packed: bytes, codec: FeatureCodec, tables: Arrays) -> Functions:
    """faiss with the codebook of `tables`, and zlib on the `packed` uniform codes and on the feature itself."""
    assert isinstance(codec, Product)
    channels = front.feature.shape[1]
    quantizer = faiss.ProductQuantizer(channels, codec.groups, codec.bits)
    faiss.copy_array_to_vector(np.ascontiguousarray(codec.books(tables["codebook"])).reshape(-1), quantizer.centroids)
    rows = np.ascontiguousarray(front.feature.transpose(0, 2, 3, 1).reshape(-1, channels))
    raw = front.feature.tobytes()
    return {
        "faiss": lambda: quantizer.compute_codes(rows),
        "zlib of uniform codes": lambda: zlib.compress(packed, 6),
        "zlib of float32": lambda: zlib.compress(raw, 6),
    }


def timing(ms: np.ndarray, front: Front, times: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Median and quartiles; share of the front half's time, by medians; MB/s of float32 feature.

    There is no rate where the median is a difference too small for the machine to tell.
    """
    median = float(np.median(ms))
    shares = {f"share_of_{name}": round(median / float(np.median(times[name])), 4) for name in FRONT}
    rate = round(front.feature.nbytes / 1e3 / median, 1) if median > 0 else None
    return {**quartiles(ms, 4), **shares, "mb_per_s": rate}


def times_as_fast(other: np.ndarray, ms: np.ndarray) -> list[float | None]:
    """Median of `other` (repeats,) over that of `ms`, between the ends of its 90 % interval by bootstrap.

    None where a difference of times is too small to divide by.
    """
    drawn = np.random.default_rng(0).integers(0, len(ms), (2000, len(ms)))
    shares = np.median(ms[drawn], axis=1) / np.median(other[drawn], axis=1)
    high, low = np.percentile(shares, (5, 95))
    middle = np.median(ms) / np.median(other)
    return [round(float(1 / share), 2) if share > 0 else None for share in (low, middle, high)]


def bench(model: str, front: Front, labels: list[str], repeats: int) -> dict[str, Any]:
    """The record of one model."""
    entries = {label: coded(feature_codec(*CODECS[label]), front, label.endswith(GATHERED)) for label in labels}
    product = entries["product 8x4"]
    others = other_functions(front, entries["uniform 4"].payload, product.codec, product.tables)
    functions = {**front_functions(front), **others}
    for label, entry in entries.items():
        functions.update({f"{label}: {stage}": function for stage, function in entry.functions.items()})
    start = time.process_time(), time.perf_counter()
    times = alternate(functions, repeats, time.process_time)
    cores = (time.process_time() - start[0]) / (time.perf_counter() - start[1])
    n = len(front.image)
    rows = {}
    for label, entry in entries.items():
        stages = {stage: times[f"{label}: {stage}"] for stage in entry.functions}
        stages["quantise, in front"] = stages.pop("deployed") - times["front"]
        ratios = {}
        for how in ("alone", "in front"):
            both = stages[f"quantise, {how}, and pack"] = stages[f"quantise, {how}"] + stages["pack"]
            ratios[how] = times_as_fast(times["faiss"], both)
        rows[label] = {
            "codec": {"id": entry.codec.codec_id, **entry.codec.config},
            "bytes_per_image": len(entry.payload) / n,
            "model_bytes_per_image": entry.model_bits / 8 / n or None,
            "formula_bytes_per_image": entry.codec.formula_bits(front.feature.shape[1:]) / 8,
            "stages": {stage: timing(ms, front, times) for stage, ms in stages.items()},
            "times_as_fast_as_faiss": ratios,
        }
    sizes = {name: memoryview(function()).nbytes / n for name, function in others.items()}
    return {
        "cut": CUTS[model],
        "feature": list(front.feature.shape),
        "cores_used": round(cores, 3),
        "front": {name: timing(times[name], front, times) for name in FRONT},
        "codecs": rows,
        "others": {name: {"bytes_per_image": sizes[name], **timing(times[name], front, times)} for name in others},
    }


def table(made: dict[str, Any]) -> str:
    """Milliseconds per batch and stage; of quantising and packing in front: MB/s, shares, how often faiss's speed.

    The last with its 90 % interval.
    """
    lines = []
    heads = ["B/image", "% > model", *SHOWN.values(), "MB/s", "% front", "% learning", "  x faiss"]
    for model, result in made["models"].items():
        times = ", ".join(f"{name} {result['front'][name]['median_ms']:.2f} ms" for name in FRONT)
        lines += ["", f"{model}, {result['feature']}, {times}", " " * 20 + "".join(f"{head:>11}" for head in heads)]
        for label, row in result["codecs"].items():
            size, least, both = row["bytes_per_image"], row["model_bytes_per_image"], row["stages"][BOTH]
            cells = [f"{size:.1f}", f"{100 * (size / least - 1):.2f}" if least else ""]
            cells += [f"{row['stages'][stage]['median_ms']:.3f}" for stage in SHOWN]
            cells += [str(both["mb_per_s"]), *(f"{100 * both[f'share_of_{name}']:.1f}" for name in FRONT)]
            low, middle, high = row["times_as_fast_as_faiss"]["in front"]
            ratio = f"  {middle:.2f} ({low:.2f} to {high:.2f})" if low and middle and high else ""
            lines.append(f"{label:<20}" + "".join(f"{cell:>11}" for cell in cells) + ratio)
        for label, row in result["others"].items():
            lines.append(f"{label:<20}{row['bytes_per_image']:>11.1f}{row['median_ms']:>22.3f}{row['mb_per_s']:>66}")
    return "\n".join(lines)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=",".join(CUTS))
    arguments.add("uniform 4 and product 8x4 are always there", codecs=",".join(CODECS))
    arguments.add("CIFAR-10, binary version", data=None)
    arguments.add(batch=32, repeats=40, out=None)
    options = arguments.parse_args()
    labels = list(dict.fromkeys(["uniform 4", "product 8x4", *options.codecs.split(",")]))
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    made: dict[str, Any] = {
        **record.head("torch", "numpy", "onnxruntime", "faiss"),
        "images": "cifar10" if options.data else "digits, scaled to the input shape",
        "weights": "fresh",
        "batch": options.batch,
        "repeats": options.repeats,
        "models": {},
    }
    with threadpool_limits(1):
        for model in options.models.split(","):
            front = front_of(model, options.data, options.batch)
            made["models"][model] = bench(model, front, labels, options.repeats)
    sys.stderr.write(table(made) + "\n")
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

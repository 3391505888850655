"""How long the graphs that learn take against PyTorch, and which of their forms is the fastest.

``python bench/front_graphs.py [--models A,B] [--out FILE]``: per model, its front half at the default cut, 32 images of
3x32x32 on one core, alternately: forward with weights as constants and as inputs, a new session, the gradient fed with
saved activations and recomputing them, the deployed graph, and PyTorch. Medians and quartiles in milliseconds of the
processor, as JSON, and `of_pytorch`: forward with weights as inputs and gradient fed, over PyTorch's both.

Every model is measured in a process of its own, twice: with the C library's usual allocator, which gives large tensors
back to the system and takes them again at every step, and with one that keeps them (`memory kept`). PyTorch pays for
that at every layer, ONNX Runtime hardly: it keeps memory itself.

``--show FILE`` prints the table of such a record. ``--resume`` keeps the models that FILE has already.
"""

import copy
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import record
import torch
from arguments import Arguments
from deployed import engine
from markdown import table
from timing import alternate, quartiles

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.export.graphs import front_graphs, learning_graph
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split
from edgekit.runtime.backends.onnxruntime import OnnxRuntime

SHAPE = (3, 32, 32)
#: What makes a step: ours, and PyTorch's.
OURS = ("forward, weights as inputs", "gradient, saved activations")
THEIRS = "pytorch forward and backward"
#: glibc's settings with which it keeps what is freed.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 31), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


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


def measured(name: str, batch: int, repeats: int, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Times of the variants of model `name`, of `names` alone where they are given."""
    torch.set_num_threads(1)
    functions = {key: run for key, run in variants(name, batch).items() if not names or key in names}
    times = alternate(functions, repeats, time.process_time)
    found: dict[str, Any] = {key: quartiles(ms, 2) for key, ms in times.items()}
    ours = sum(found[key]["median_ms"] for key in OURS)
    return {**found, "of_pytorch": round(ours / found[THEIRS]["median_ms"], 3)}


def apart(*job: Any) -> dict[str, Any]:
    """`measured` in a process of its own, so that nothing that ran before counts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, *job).result()


def both(name: str, batch: int, repeats: int) -> dict[str, Any]:
    """Times of model `name` with the usual allocator, and of a step with one that keeps memory."""
    usual = apart(name, batch, repeats)
    os.environ.update(KEPT)
    try:
        return {**usual, "memory kept": apart(name, batch, repeats, (*OURS, THEIRS))}
    finally:
        for key in KEPT:
            del os.environ[key]


def shown(models: dict[str, Any]) -> str:
    """The table: milliseconds of a step, and their share of PyTorch's."""

    def cells(found: dict[str, Any]) -> Iterator[str]:
        for key in (*OURS, THEIRS):
            yield f"{found[key]['median_ms']:.1f}"
        yield f"{found['of_pytorch']:.2f}"
        yield f"{found['memory kept']['of_pytorch']:.2f}"

    heads = ("model", "forward", "gradient", "PyTorch, both", "of PyTorch", "memory kept")
    rows = [(name, *cells(found)) for name, found in models.items()]
    middle = [
        f"{statistics.median(found['of_pytorch'] for found in kind):.2f}"
        for kind in (models.values(), [found["memory kept"] for found in models.values()])
    ]
    return table(heads, [*rows, ("median", "", "", "", *middle)])


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models=",".join(MODELS), batch=32, repeats=15, resume=False)
    options = arguments.parse_or_show(lambda made: shown(made["models"]))
    if options.resume and not options.out:
        arguments.error("--resume continues the file that --out names")
    begun = options.resume and os.path.exists(options.out)
    models: dict[str, Any] = record.read(options.out)["models"] if begun else {}
    made = {**record.head("torch", "numpy", "onnxruntime"), "batch": options.batch, "models": models}
    for name in options.models.split(","):
        if name not in models:
            models[name] = both(name, options.batch, options.repeats)
            if options.out:
                record.write(made, options.out)
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

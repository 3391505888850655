"""What it costs to keep activations where they are computed, and the portable form of the graphs that learn.

``python bench/providers.py [--models A,B] [--repeats N] [--out FILE]``: per model, its front half at the default cut,
32 images of 3x32x32, on one core, forward and gradient graph together, alternately: with numpy arrays in and out of
both sessions ("plain feeds"), with activations bound and kept ("kept"), and the same in the portable form
("portable"). Medians and quartiles in milliseconds, the median ratios to plain feeds, and whether all gradients are
equal bit for bit, as JSON. ``--show FILE`` prints the table of such a record.
"""

from collections.abc import Callable
from typing import Any

import markdown
import numpy as np
import onnxruntime
import record
from arguments import Arguments
from deployed import engine
from timing import alternate, quartiles

from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.export.graphs import FrontGraphs, front_graphs
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split
from edgekit.runtime.backends.base import Fed

SHAPE = (3, 32, 32)
GRAPHS = ("front_train", "front_grad")


def plain(graphs: FrontGraphs, held: Arrays, given: Arrays) -> Callable[[], Arrays]:
    """A step that feeds both sessions from the host and takes everything back to it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = {
        key: onnxruntime.InferenceSession(graphs.models[f"{key}.onnx"], options, providers=["CPUExecutionProvider"])
        for key in GRAPHS
    }
    names = {key: [spec.name for spec in graphs.specs[key].outputs] for key in GRAPHS}

    def run() -> Arrays:
        known = {**held, **given}
        for key in GRAPHS:
            feeds = {spec.name: known[spec.name] for spec in graphs.specs[key].inputs + graphs.specs[key].held}
            known.update(zip(names[key], sessions[key].run(names[key], feeds), strict=True))
        return {name: known[name] for name in names["front_grad"]}

    return run


def kept(graphs: FrontGraphs, held: Arrays, given: Arrays) -> Callable[[], Arrays]:
    """A step as a device makes it: what the gradient graph reads stays with ONNX Runtime."""
    train, grad = (engine(graphs.models[f"{key}.onnx"], graphs.specs[key], held) for key in GRAPHS)
    read = [name for name in (spec.name for spec in train.graph.outputs) if name == graphs.feature or "codes" in name]
    read += [name for norm in graphs.batch_norms for name in (norm.batch_mean, norm.batch_var)]

    def run() -> Arrays:
        outputs = train.run_kept({"image": given["image"]})
        for name in read:
            outputs[name].array()
        known: dict[str, Fed] = {**given, **outputs}
        return grad.run({spec.name: known[spec.name] for spec in grad.graph.inputs})

    return run


def steps(name: str, batch: int) -> dict[str, Callable[[], Arrays]]:
    """What is timed for model `name`."""
    rng = np.random.default_rng(0)
    front, _ = split(build(name, SHAPE, 10, 0), MODELS[name].cut)
    codec = feature_codec("uniform", {"bits": 4})
    graphs, portable = (front_graphs(front, SHAPE, codec, {}, provider=provider) for provider in ("cpu", "cuda"))
    shape = next(spec.shape for spec in graphs.specs["front_grad"].inputs if spec.name == "gradient")
    given = {
        "image": rng.standard_normal((batch, *SHAPE), dtype=np.float32),
        "gradient": rng.standard_normal((batch, *shape[1:]), dtype=np.float32),
    }
    return {
        "plain feeds": plain(graphs, graphs.state, given),
        "kept": kept(graphs, graphs.state, given),
        "portable": kept(portable, graphs.state, given),
    }


def table(made: Any) -> str:
    """The record `made` in Markdown."""
    rows = []
    for name, model in made["models"].items():
        kept, portable = (model["ratio"][key] for key in ("kept", "portable"))
        same = "yes" if model["kept equals plain feeds bit for bit"] else "no"
        times = [f"{model[key]['median_ms']:.1f}" for key in ("plain feeds", "kept", "portable")]
        rows.append([name, *times, f"{kept:.3f}", same, f"{portable / kept:.3f}"])
    heads = ["model", "plain feeds, ms", "kept, ms", "portable, ms", "kept / plain", "same bits", "portable / kept"]
    return markdown.table(heads, rows)


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models="mobilenet_v1,vgg11_thin,resnet18", batch=32, repeats=25)
    options = arguments.parse_or_show(table)
    made = {**record.head("numpy", "onnxruntime"), "batch": options.batch, "models": {}}
    for name in options.models.split(","):
        functions = steps(name, options.batch)
        first, second = functions["plain feeds"](), functions["kept"]()
        times = alternate(functions, options.repeats)
        made["models"][name] = {
            **{key: quartiles(ms, 2) for key, ms in times.items()},
            "ratio": {key: round(float(np.median(times[key] / times["plain feeds"])), 3) for key in times},
            "kept equals plain feeds bit for bit": all(np.array_equal(first[key], second[key]) for key in first),
        }
    record.finish(made, options.out)


if __name__ == "__main__":
    main()

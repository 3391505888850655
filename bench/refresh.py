"""What new weights cost the deployed graph, by the way they take into it.

``python bench/refresh.py [--models A,B] [--out FILE]``: per model, its front half at the default cut, 32 images of
3x32x32 on one core of ONNX Runtime, alternately: the deployed graph over constants, the same graph with its weights
as inputs, and a new session over new constants. Medians and quartiles in milliseconds. For TensorRT the calls that
one refresh makes are counted in the emulator that the tests use, for the Jetson Nano; their time needs a board.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import record
import torch
from arguments import Arguments
from deployed import engine
from front_graphs import SHAPE
from onnx import helper
from timing import measure

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays
from edgekit.codecs.registry import feature_codec
from edgekit.device_profiles.registry import profile
from edgekit.export.graphs import front_graphs
from edgekit.export.models.registry import MODELS, build
from edgekit.export.split import split
from edgekit.runtime.backends.tensorrt import cudart
from edgekit.runtime.backends.tensorrt.backend import TensorRt

sys.path.append(str(Path(__file__).parents[1]))
from tests.device.tensorrt import cudart_emulator, emulator

BATCH = 32


class Deployed:
    """front.onnx of one model for one board, with what it holds."""

    def __init__(self, name: str, device: str) -> None:
        front, _ = split(build(name, SHAPE, 10, 0), MODELS[name].cut)
        codec = feature_codec("sgq", {})
        with torch.no_grad():
            tables = codec.calibrate(front.eval()(torch.randn(BATCH, *SHAPE)).numpy(), 0)
        graphs = front_graphs(front, SHAPE, codec, tables, device=profile(device), batch_size=BATCH)
        self.model, self.spec = graphs.models["front.onnx"], graphs.specs["front"]
        stored = {each.name: onnx.numpy_helper.to_array(each) for each in self.proto().graph.initializer}
        self.constants: Arrays = {spec.name: stored[spec.name] for spec in self.spec.constants}
        self.books = {spec.name: codec.table_feeds(tables)[spec.name] for spec in self.spec.held}

    def proto(self) -> onnx.ModelProto:
        return onnx.load_from_string(self.model)

    def with_inputs(self) -> tuple[bytes, GraphSpec]:
        """The same graph, its weights given at every run."""
        proto = self.proto()
        kept = [each for each in proto.graph.initializer if each.name not in self.constants]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
        for name, array in self.constants.items():
            proto.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape))
        spec = self.spec._replace(held=self.spec.held + self.spec.constants, constants=())
        return proto.SerializeToString(), spec


def variants(name: str) -> dict[str, Callable[[], Any]]:
    """What is timed for model `name`."""
    deployed = Deployed(name, "cpu")
    constant = engine(deployed.model, deployed.spec, deployed.books)
    given = engine(*deployed.with_inputs(), {**deployed.books, **deployed.constants})
    image = {"image": np.random.default_rng(0).standard_normal((BATCH, *SHAPE), dtype=np.float32)}
    for code, other in zip(constant.run(image).values(), given.run(image).values(), strict=True):
        assert (code == other).mean() > 0.999, "the two graphs compute the same"
    return {
        "run, weights as constants": lambda: constant.run(image),
        "run, weights as inputs": lambda: given.run(image),
        "new session": lambda: constant.set_weights(deployed.constants),
    }


def refit_calls(name: str) -> dict[str, int]:
    """The calls of one refit of model `name`'s engine, and the bytes they hand over, in TensorRT 8.2's shape."""
    deployed = Deployed(name, "jetson-nano")
    library = cudart_emulator.Library()
    trt = emulator.module("8.2", library)
    sizes: list[int] = []
    original = trt.Refitter.set_named_weights

    def counted(refitter: Any, name: str, weights: Any) -> bool:
        sizes.append(weights.numpy().nbytes)
        return bool(original(refitter, name, weights))

    with (
        mock.patch.dict(sys.modules, tensorrt=trt),
        mock.patch.object(cudart, "load", lambda: cudart.Cudart(library)),
        mock.patch.object(trt.Refitter, "set_named_weights", counted),
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, EDGEKIT_CACHE=cache),
        contextlib.closing(TensorRt(deployed.model, deployed.spec)) as tensorrt,
    ):
        before = dict(trt.count)
        tensorrt.set_weights({key: value * np.float32(1.01) for key, value in deployed.constants.items()})
        made = {key: trt.count[key] - before[key] for key in ("refit", "context", "build")}
    return {
        "set_named_weights": len(sizes), "bytes": sum(sizes), "refit_cuda_engine": made["refit"],
        "create_execution_context": made["context"], "builds": made["build"],
    }  # fmt: skip


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add(models="vgg11,mobilenet_v1,resnet18", repeats=15, out=None)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    for name in options.models.split(","):
        times = measure(variants(name), options.repeats)
        constants, inputs, session = (times[key]["median_ms"] for key in times)
        # A new session pays once per refresh, inputs at every run: from so many runs between two refreshes on it wins.
        even = session / (inputs - constants) if inputs > constants else None
        rows[name] = {"times": times, "runs_to_pay_a_session": even and round(even, 2), "refit": refit_calls(name)}
    head = record.head("onnxruntime", "numpy")
    record.finish({**head, "batch": BATCH, "models": rows}, options.out)


if __name__ == "__main__":
    main()

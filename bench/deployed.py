"""Deployed graphs, as a device runs them, in ONNX Runtime."""

from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import numpy as np
from torch import nn

from edgekit.bundle import GraphSpec
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.device_profiles.registry import profile
from edgekit.export.graphs import deployed_graph
from edgekit.runtime.backends.onnxruntime import OnnxRuntime


def engine(model: bytes, spec: GraphSpec, held: Arrays) -> OnnxRuntime:
    backend = OnnxRuntime(model, spec)
    backend.set_weights({each.name: held[each.name] for each in spec.held})
    return backend


def quantise_stage(
    half: nn.Module, given: np.ndarray, codec: FeatureCodec, tables: Arrays, gathered: bool = False
) -> Callable[[], Arrays]:
    """Runs the deployed graph of `half`, quantise stage included, on `given`."""
    board, n = profile("cpu"), len(given)
    folding = mock.patch("edgekit.export.graphs.fold_order", return_value=()) if gathered else nullcontext()
    if gathered:
        board = board._replace(target=board.target._replace(codebooks="inputs"))
    with folding:
        graph, spec = deployed_graph(half, given.shape[1:], codec, tables, board, n)
    model = engine(graph, spec, codec.table_feeds(tables))
    return lambda: model.run({"image": given})

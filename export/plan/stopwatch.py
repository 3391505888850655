"""Measures how long the two halves of a training step take on this host."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from edgekit.codecs.base import Arrays, CodebookCodec, FeatureCodec
from edgekit.codecs.codebook import OnlineCodebook
from edgekit.export.frames import Frames
from edgekit.export.graphs import FrontGraphs

#: Seconds after which no further repetition is started.
LONG = 5.0


class FrontTime(NamedTuple):
    """Seconds that a device takes for a batch.

    `learn_s`: forward pass, packing, unpacking a gradient, gradients, following the codebook. `encode_s`: deployed
    forward pass and packing.
    """

    learn_s: float
    encode_s: float


def median_seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """Median seconds of at most `repeats` runs of `function`, after one that does not count; fewer if they are long."""
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
        if len(times) > 1 and time.perf_counter() - began > LONG:
            break
    return statistics.median(times[1:])


def server_seconds(back: nn.Module, sent: Frames, classes: int, device: torch.device) -> float:
    """Seconds of one batch: decoding, forward, backward and a step of SGD in PyTorch on `device`, coding the gradient.

    The coded gradient is decoded as well, as a server does to report how far it deviates.

    `back` stays as it was; torch uses as many threads as it is set to.
    """
    back = copy.deepcopy(back).train().to(device)
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, classes, sent.shape[0])).to(device)
    optimizer = torch.optim.SGD(back.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        feature = torch.tensor(sent.decode(), device=device, requires_grad=True)
        loss = cross_entropy(back(feature), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert feature.grad is not None
        gradient = sent.gradient_codec.pack(feature.grad.cpu().numpy(), None, rng)
        sent.gradient_codec.unpack(gradient, sent.shape, None)

    return median_seconds(step)


def front_time(graphs: FrontGraphs, codec: FeatureCodec, tables: Arrays, sent: Frames, image: np.ndarray) -> FrontTime:
    """Seconds of the front half in ONNX Runtime on one thread, for the batch `image` (n,C,H,W) f32."""
    sessions = {file: _session(model) for file, model in graphs.models.items()}
    held = {**graphs.state, **codec.table_feeds(tables)}
    names = {key: [output.name for output in spec.outputs] for key, spec in graphs.specs.items()}

    def run(key: str, feeds: Arrays) -> Arrays:
        spec, values = graphs.specs[key], {**held, **feeds}
        given = {each.name: values[each.name] for each in (*spec.inputs, *spec.held)}
        return dict(zip(names[key], sessions[f"{key}.onnx"].run(names[key], given), strict=True))

    def pack(outputs: Arrays) -> bytes:
        return codec.pack({each.name: outputs[each.name] for each in graphs.specs["front"].outputs})

    following = (
        OnlineCodebook(codec, tables, decay=0.9, tolerance=0.1, seed=0) if isinstance(codec, CodebookCodec) else None
    )

    def learn() -> None:
        outputs = run("front_train", {"image": image})
        pack(outputs)
        gradient = sent.gradient_codec.unpack(sent.packed_gradient, sent.shape, None)
        run("front_grad", {**outputs, "image": image, "gradient": gradient})
        if following:
            following.update(outputs[graphs.feature], outputs["codes"])
            following.publish()

    return FrontTime(median_seconds(learn), median_seconds(lambda: pack(run("front", {"image": image}))))


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

"""A model by name, a board and a link -> a plan: what `edgekit plan` does."""

import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import onnxruntime
import torch

from edgekit.codecs.base import FeatureCodec
from edgekit.data.base import Dataset
from edgekit.device_profiles.profile import Profile
from edgekit.device_profiles.registry import profile
from edgekit.errors import UsageError
from edgekit.export.fold import is_fresh
from edgekit.export.models.own import classes_of
from edgekit.export.models.registry import build, default_cut
from edgekit.export.named import default_shape, parse_shape
from edgekit.export.plan.cuts import chosen, cut_table
from edgekit.export.plan.observe import Trial, observe, sample_images
from edgekit.export.plan.predict import Prediction, predict
from edgekit.export.plan.settings import Compared, PlannedStep, Timing
from edgekit.export.settings import NamedNetwork
from edgekit.link.link import Link, parse_link


class Plan(NamedTuple):
    """`predictions`, fastest first; `refused`: layer -> why nothing is predicted for it."""

    model: str
    default: str | None
    board: Profile
    link: Link
    codec: FeatureCodec
    input_shape: tuple[int, int, int]
    classes: int
    devices: int
    batch: int
    #: Where the images and the device's and the server's times come from, in words.
    images: str
    device_time: str
    server_time: str
    predictions: list[Prediction]
    refused: dict[str, str]

    @property
    def title(self) -> str:
        """One line on what was compared."""
        size, board = "x".join(map(str, self.input_shape)), self.board.title
        count = f"{self.devices} devices" if self.devices > 1 else "1 device"
        return f"{self.model} {size} on {board}, {count}, link {self.link}, batch {self.batch}, {self.codec!r}"

    def to_json(self) -> dict[str, Any]:
        """JSON values only; seconds and bytes are per step and per image as `Prediction` says."""
        return {
            **self._asdict(),
            "board": {"name": self.board.name, "hardware": self.board.hardware._asdict()},
            "link": self.link._asdict(),
            "codec": {"id": self.codec.codec_id, "config": self.codec.config},
            "predictions": [prediction.to_json() for prediction in self.predictions],
        }


def plan_named(
    network: NamedNetwork,
    step: PlannedStep,
    compared: Compared = Compared(),
    timing: Timing = Timing(),
    *,
    dataset: Dataset | None = None,
    seed: int = 0,
    on_cut: Callable[[int, int, str], None] = lambda done, total, layer: None,
) -> Plan:
    """The predicted speed of every cut of `network` that is compared, in one `step`.

    Input shape and classes are the network's own, else those of `dataset`, else 3,32,32 and 10. Without a dataset the
    images are random. `network.cut`, where it is given, takes the place of the default cut. `seed` decides fresh
    weights and images. `on_cut` is told how many of how many cuts are done, and the layer that comes next. UsageError,
    ExportError.
    """
    name, classes = network.name, network.classes
    devices, batch, codec = step.devices, step.batch, step.codec
    board, line = profile(step.device), parse_link(step.link)
    if devices < 1 or timing.threads < 1:
        raise UsageError(f"{devices} devices and {timing.threads} threads: expected at least 1 of each")
    if network.input_shape:
        shape = parse_shape(network.input_shape)
    else:
        shape = default_shape(dataset) if dataset else (3, 32, 32)
    if classes is None and dataset:
        classes = len(dataset.classes)
    where = _torch_device(timing.torch_device)
    images = sample_images(shape, batch, seed, dataset)
    module = build(name, shape, classes, seed, network.weights, dataset.classes if dataset else ())
    classes = classes or classes_of(module, shape)
    default = network.cut or default_cut(name)
    table = cut_table(module, shape, codec)
    cuts = chosen(table, default, compared.layers, compared.everything)
    done = iter(range(len(cuts)))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(timing.threads)
    try:
        norm = "batch" if is_fresh(module) else board.target.norm
        trial = Trial(images, classes, codec, [board], norm, timing.measure, where, seed)
        observed, refused = observe(module, cuts, trial, lambda layer: on_cut(next(done), len(cuts), layer))
    finally:
        torch.set_num_threads(threads_before)
    if not observed:
        refused = refused or {cut.layer: cut.refusal for cut in table if cut.refusal}
        layer, reason = next(iter(refused.items()), ("", "it has no layer to cut at"))
        raise UsageError(f"no cut of {name} can be used, of {len(refused)} refused ones the first: {layer}: {reason}")
    return Plan(
        model=name,
        default=default,
        board=board,
        link=line,
        codec=codec,
        input_shape=shape,
        classes=classes,
        devices=devices,
        batch=batch,
        images=f"{batch} of {dataset.name}" if dataset else f"{batch} random normal images",
        device_time=f"measured on this host, ONNX Runtime {onnxruntime.__version__}, one {platform.machine()} thread"
        if timing.measure
        else f"roofline of {board.name}'s peak figures: a lower bound",
        server_time=f"measured on this host, torch {torch.__version__}, {where.type}, "
        f"--server-threads {timing.threads}",
        predictions=predict(observed, board, line, devices),
        refused=refused,
    )


def _torch_device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not available):
        raise UsageError(
            f"--torch-device {name}: expected auto, cpu or cuda; torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(name)

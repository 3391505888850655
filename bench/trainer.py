"""The line in one process: real device, session, frames and service, with both halves in PyTorch (torch_halves.py)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_halves import TorchFront, torch_back

from edgekit.codecs.base import Arrays, CodebookCodec, FeatureCodec
from edgekit.codecs.registry import feature_codec
from edgekit.data import images
from edgekit.data.base import Dataset
from edgekit.export.fold import with_batch_statistics
from edgekit.export.local_head import LocalHead
from edgekit.export.models.registry import MODELS, build
from edgekit.export.named import calibration_images, default_shape
from edgekit.export.settings import Calibration
from edgekit.export.significance import significance
from edgekit.export.split import split
from edgekit.line.meter import Meter
from edgekit.runtime.front import normalise
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.server.calibrate import calibrator
from edgekit.server.local_loss import LocalLoss
from edgekit.server.noise_filling import noise_filling
from edgekit.server.service import Service
from edgekit.server.setup import Setup
from edgekit.server.train import OptimizerConfig

LINE = ("epoch", "images", "loss", "head_loss", "train_accuracy", "images_per_s", "accuracy", "test_loss")
#: What is done to training images where a plan says so.
AUGMENT = "flip,crop:4"


class Plan(NamedTuple):
    """One run. `codec` and `config` are a feature codec's, `gradient` a gradient codec's policy; counts are images."""

    model: str
    cut: str | None
    codec: str
    config: dict[str, Any]
    gradient: str
    seed: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float = 5e-4
    #: Training images are changed as `AUGMENT` says.
    augment: bool = False
    #: Networks compute in bfloat16 but for depthwise convolutions; what crosses the cut, weights and optimizers do not.
    mixed: bool = False
    calibration: int = 256
    #: Every so many epochs the channels are grouped anew; 0 never.
    regroup: int = 0
    #: False: the front half stays as drawn, for a floor.
    front: bool = True
    #: How slowly codewords move, and how far, of their group's spread, before they are sent again.
    decay: float = 0.9
    tolerance: float = 0.1
    #: Epochs from one evaluation to the next; the last is always evaluated.
    every: int = 2
    #: As --noise-filling of `edgekit train`: None, "lost", or a share.
    noise_filling: str | None = None
    #: As --local-loss and --gradient-every.
    local_loss: float = 0.0
    gradient_every: int = 1
    #: FedLite's, see `TorchFront`; 0: none.
    correction: float = 0.0


class Trainer:
    """Trains one plan on the training images `share` of `dataset`; `on_epoch` sees each epoch's line."""

    def __init__(
        self, plan: Plan, dataset: Dataset, share: np.ndarray, on_epoch: Callable[[dict[str, Any]], None]
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self._share, self._on_epoch = share, on_epoch
        shape = default_shape(dataset)
        self.data = data = images.fit(dataset, shape)
        model = build(plan.model, shape, len(data.classes), plan.seed)
        front, self.back = split(model, plan.cut or MODELS[plan.model].cut)
        self.codec = codec = feature_codec(plan.codec, plan.config)
        calibration = Calibration(dataset, plan.calibration, data.mean, data.std)
        self.shape, tables = calibrated(codec, front, self.back, calibration, plan.seed)
        local_loss = LocalLoss(plan.local_loss, plan.gradient_every)
        local_loss.check()
        head = LocalHead(self.shape[0], len(data.classes), plan.seed) if plan.local_loss else None
        self.front = TorchFront(
            front, codec, tables, data, plan.weight_decay, mixed=plan.mixed, frozen=not plan.front, head=head,
            correction=plan.correction,
        )  # fmt: skip
        optimizer = OptimizerConfig("sgd", plan.lr, 0.9, plan.weight_decay)
        setup = Setup(
            self.front.digest, codec, tables, self.shape, len(data.classes),
            torch_back(self.back, optimizer, plan.mixed), calibrator(plan.gradient, plan.seed), optimizer, "cosine",
            noise_filling(plan.noise_filling, codec, plan.seed), local_loss=local_loss,
        )  # fmt: skip
        # Methods without codebooks have nothing to regroup.
        regroup = plan.regroup if isinstance(codec, CodebookCodec) else 0
        options = Options(
            "in-process", plan.epochs, plan.batch, 1, plan.seed, plan.decay, plan.tolerance, regroup, plan.every,
            augment=AUGMENT if plan.augment else None,
        )  # fmt: skip
        self.device = Device(self.front, Loopback(Service(setup).handle, Meter()), options, self._event)
        torch.manual_seed(plan.seed)

    def run(self) -> list[dict[str, Any]]:
        """The epochs' lines."""
        train = Images(self.data.train_images[self._share], self.data.train_labels[self._share])
        self.device.train(train, Images(self.data.test_images, self.data.test_labels))
        return self.lines

    def _event(self, event: dict[str, Any]) -> None:
        if event["event"] != "epoch":
            return
        before = self.lines[-1]["deviation_so_far"] if self.lines else 0.0
        line = {
            **{name: event[name] for name in LINE if name in event},
            "deviation": event["gradient_deviation"] * event["epoch"] - before * (event["epoch"] - 1),
            "deviation_so_far": event["gradient_deviation"],
            **{f"bytes_{way}_per_image": event[f"bytes_{way}"] / event["images"] for way in ("up", "down")},
            "bytes": self.device.meter.by_kind(),
        }
        if "codebook" in event:
            line["codebook"] = {k: v for k, v in event["codebook"].items() if isinstance(v, (int, float))}
        self.lines.append(line)
        self._on_epoch(line)


def calibrated(
    codec: FeatureCodec, front: torch.nn.Module, back: torch.nn.Module, calibration: Calibration, seed: int
) -> tuple[tuple[int, int, int], Arrays]:
    """The shape (C,h,w) of the feature, and the codec's first tables, as an export would have them."""
    chosen = calibration_images(calibration, default_shape(calibration.dataset), seed)
    mean, std = (np.array(values, dtype=np.float32) for values in (chosen.mean, chosen.std))
    image = torch.from_numpy(normalise(chosen.images, mean, std))
    with torch.no_grad():
        features = with_batch_statistics(front)(image.contiguous(memory_format=torch.channels_last))
    codec.check(features.shape[1])
    matters = None
    if codec.needs_significance:
        matters = significance("gradient", back, features, chosen.labels, seed)
    return tuple(features.shape[1:]), codec.calibrate(features.numpy(), seed, matters)

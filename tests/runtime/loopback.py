"""A device and a service in one process, through real frames."""

from pathlib import Path
from typing import Any

import torch

from edgekit.bundle import Bundle, write_bundle
from edgekit.data.base import Dataset
from edgekit.line.meter import Meter
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device
from edgekit.runtime.session import Images, Options
from edgekit.runtime.transport import Loopback
from edgekit.server.calibrate import calibrator
from edgekit.server.local_loss import WITHOUT, LocalLoss
from edgekit.server.noise_filling import noise_filling
from edgekit.server.service import Service
from edgekit.server.setup import setup_from_bundle
from edgekit.server.train import OptimizerConfig

TEST_SHARE = 90


def service(
    bundle: Bundle, policy: str = "stochastic-masked", noise: str | None = None, local: LocalLoss = WITHOUT
) -> Service:
    config = OptimizerConfig("sgd", 0.05, 0.9, 5e-4)
    filling = noise_filling(noise, bundle.codec, 0)
    cpu = torch.device("cpu")
    return Service(setup_from_bundle(bundle, cpu, calibrator(policy, 0), config, "cosine", filling, local))


def train(bundle: Bundle, digits: Dataset, handle: Any, **options: Any) -> tuple[Device, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    front = FrontHalf(bundle, "onnxruntime", 1)
    device = Device(front, Loopback(handle, Meter()), Options("d", **options), events.append)
    device.train(
        Images(digits.train_images[:640], digits.train_labels[:640]),
        Images(digits.test_images[:TEST_SHARE], digits.test_labels[:TEST_SHARE]),
    )
    return device, events


def coded_by(coding: str, bundle: Bundle, folder: Path, **settings: Any) -> Bundle:
    """`bundle`, its indices on the line by `coding`."""
    config = {**bundle.codec.config, "coding": coding, **settings}
    manifest = {**bundle.manifest, "codec": {"id": "sgq", "config": config}}
    files = {name: bundle.read(name) for name in manifest.pop("files")}
    return write_bundle(str(folder / coding), manifest, files)

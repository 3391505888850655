"""Setup: what all sessions of a server share."""

from typing import NamedTuple

import torch

from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.errors import UsageError
from edgekit.schedule import check_schedule
from edgekit.server.calibrate import Calibrator
from edgekit.server.local_loss import WITHOUT, LocalLoss
from edgekit.server.look import golden_size
from edgekit.server.noise_filling import NoiseFilling
from edgekit.server.train import BackHalf, OptimizerConfig


class Setup(NamedTuple):
    """The bundle's part in training, the back half, and how both halves are trained."""

    #: Digest of the bundle that devices must have.
    digest: str
    codec: FeatureCodec
    #: Codec tables that every session begins with.
    tables: Arrays
    #: (C,h,w)
    feature_shape: tuple[int, int, int]
    classes: int
    back: BackHalf
    calibrator: Calibrator
    optimizer: OptimizerConfig
    #: Schedule of the learning rate, see `edgekit.schedule`.
    schedule: str
    noise_filling: NoiseFilling | None = None
    #: Weights and buffers that every front half begins with; names of those that learn, of batch norms' statistics
    #: among them, and of the variances among these.
    front: Arrays = {}  # noqa: RUF012 - never mutated; a NamedTuple default cannot be a factory
    learned: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    variances: tuple[str, ...] = ()
    #: Names of the classes; none where the bundle does not name them.
    class_names: tuple[str, ...] = ()
    #: See `edgekit.server.look.golden_size`.
    golden_size: float | None = None
    local_loss: LocalLoss = WITHOUT


def setup_from_bundle(
    bundle: Bundle,
    device: torch.device,
    calibrator: Calibrator,
    optimizer: OptimizerConfig,
    schedule: str,
    noise_filling: NoiseFilling | None = None,
    local_loss: LocalLoss = WITHOUT,
) -> Setup:
    """The setup of `bundle`, its back half on `device`. UsageError or UnknownName when the settings do not fit it."""
    check_schedule(schedule)
    local_loss.check()
    local_loss.check_bundle(bundle)
    if calibrator.masked and not bundle.after_relu:
        raise UsageError(
            f"the feature at '{bundle.cut}' does not come from a ReLU, so where it is about zero gradients matter: "
            "choose a gradient codec that is not masked"
        )
    # Here, not at the first gradient: by then the back half has moved.
    calibrator.codec.check(bundle.feature_shape[0])
    programs = bundle.read("back_train.pt2"), bundle.read("back_eval.pt2")
    back = BackHalf.from_programs(*programs, bundle.arrays("back.safetensors"), device, optimizer)
    shape, classes, norms = bundle.feature_shape, bundle.classes, bundle.manifest["batch_norms"]
    front = bundle.arrays("front.safetensors") if "front.safetensors" in bundle.manifest["files"] else {}
    learned = bundle.learned
    if local_loss.weight:
        front, learned = {**front, **bundle.head_weights()}, (*learned, *bundle.head)
    return Setup(
        bundle.digest, bundle.codec, bundle.tables(), shape, classes, back, calibrator, optimizer, schedule,
        noise_filling, front, learned,
        tuple(norm[key] for norm in norms for key in ("running_mean", "running_var")),
        tuple(norm["running_var"] for norm in norms), bundle.class_names, golden_size(bundle),
        local_loss,
    )  # fmt: skip

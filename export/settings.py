"""What an export is told, in four groups: the network, the calibration images, the coding, the board.

::

    by name:   NamedNetwork   NamedData --load--> Calibration   Coding   BoardSettings  --export_named-->  bundle
    by value:  Network        CalibrationImages                 Coding   BoardSettings  --build_bundle-->  bundle
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.registry import parse_feature_codec
from edgekit.data import registry
from edgekit.data.base import Dataset
from edgekit.device_profiles.profile import Profile
from edgekit.device_profiles.registry import profile
from edgekit.providers import AUTO

if TYPE_CHECKING:  # neither may cost those who only read settings the import of torch, which takes seconds
    from torch import nn

    from edgekit.export.rate.choose import Goal


class NamedNetwork(NamedTuple):
    """A network by its name, "vgg11", or by "module:factory" where it is the user's own."""

    name: str
    #: Layer after which it is cut; None: the default of a network that is built in.
    cut: str | None = None
    #: Safetensors file, or the folder of `edgekit train --out`; None: fresh weights, drawn by the seed.
    weights: str | None = None
    #: "C,H,W"; None: the dataset's channels, at 28, 32 or 224 pixels.
    input_shape: str | None = None
    #: Classes that it tells apart; None: as many as the dataset has.
    classes: int | None = None


class Network(NamedTuple):
    """A network in memory, the name that the bundle records, and the layer after which it is cut."""

    module: "nn.Module"
    name: str
    cut: str
    #: Weights of a local head that learned at this cut, by name; none: they are drawn.
    head: dict[str, np.ndarray] = {}  # noqa: RUF012 - never mutated; a NamedTuple default cannot be a factory


class Calibration(NamedTuple):
    """The training images of `dataset` that give the first codebooks: `n_images` of them, balanced over the classes.

    `mean` and `std`, per channel and in units of 0..1, are what images are normalised by; None: the dataset's.
    """

    dataset: Dataset
    n_images: int = 256
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class NamedData(NamedTuple):
    """A dataset by its name, and the calibration images among it, as `Calibration` has them."""

    dataset: str = "digits"
    #: Where its files are; None for "digits", which has none.
    folder: str | None = None
    #: Training images that are used, balanced over the classes; None: all.
    limit: int | None = None
    n_images: int = 256
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def load(self, seed: int) -> Calibration:
        """The dataset itself, limited by a draw that `seed` decides; UsageError, DataError."""
        dataset = registry.load(self.dataset, self.folder, self.limit, seed)
        return Calibration(dataset, self.n_images, self.mean, self.std)


class CalibrationImages(NamedTuple):
    """Calibration images (n,C,H,W) uint8 in the network's input shape, and what they are normalised by.

    `mean` and `std` are per channel, in units of 0..1. `labels` (n,) are needed where channels have a significance, and
    where a rate is chosen. With `class_names`, one for each class in the order of labels, devices find the labels of
    their images by name; without, they can only compare how many classes there are.
    """

    images: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()


class Coding(NamedTuple):
    """How the feature is coded."""

    codec: FeatureCodec
    #: How a channel's significance is measured, "gradient" or "gate"; None: "gradient", for codecs that need one.
    significance: str | None = None
    #: What groups and bits of `codec`, and the gradient policy, are chosen for; None: nothing is chosen.
    goal: "Goal | None" = None


class BoardSettings(NamedTuple):
    """The board that the front half is exported for."""

    #: Name of a profile, path of one (.toml), or the profile itself.
    device: str | Profile = "cpu"
    #: Batch norm while learning, "batch" or "frozen"; None: the board's, or "batch" for a network never trained.
    norm: str | None = None
    #: Images of the deployed graph's batch, on boards of static shapes.
    static_batch: int = 32
    #: The last layers of the front half that learn, the others staying as they are; None: all learn.
    train_layers: int | None = None
    #: What the graphs that learn are to run on: a name of `edgekit.providers`, or "auto", the board's.
    provider: str = AUTO
    #: Whether the bundle has a local head (export/local_head.py), for servers that are told to train with its loss.
    local_head: bool = True

    @property
    def profile(self) -> Profile:
        """All that is known of the board; UnknownName, UsageError."""
        return profile(self.device) if isinstance(self.device, str) else self.device


def as_coding(codec: str | FeatureCodec | Coding) -> Coding:
    """The coding by `codec`, which may be its text, "sgq:groups=8,bits=4"; UsageError."""
    if isinstance(codec, Coding):
        return codec
    return Coding(parse_feature_codec(codec) if isinstance(codec, str) else codec)


def as_board(board: str | Profile | BoardSettings) -> BoardSettings:
    """The settings of `board`, which may be its profile or the name of that."""
    return board if isinstance(board, BoardSettings) else BoardSettings(board)

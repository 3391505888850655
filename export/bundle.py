"""export_bundle: a network by name, or in memory, -> a bundle; for Python programs."""

from typing import TYPE_CHECKING

from edgekit.bundle import Bundle
from edgekit.codecs.base import FeatureCodec
from edgekit.data.base import Dataset
from edgekit.device_profiles.profile import Profile
from edgekit.errors import UsageError
from edgekit.export.build import build_bundle
from edgekit.export.named import calibration_images, export_named
from edgekit.export.settings import (
    BoardSettings,
    Calibration,
    CalibrationImages,
    Coding,
    NamedData,
    NamedNetwork,
    Network,
    as_board,
    as_coding,
)

if TYPE_CHECKING:
    from torch import nn

Data = str | NamedData | Dataset | Calibration | CalibrationImages


def export_bundle(
    model: "str | NamedNetwork | nn.Module",
    path: str,
    *,
    cut: str | None = None,
    data: Data = "digits",
    codec: str | FeatureCodec | Coding = "sgq",
    board: str | Profile | BoardSettings = "cpu",
    seed: int = 0,
    overwrite: bool = False,
) -> Bundle:
    """The bundle of `model`, cut after layer `cut`, written to the folder `path`.

    `model` is a name ("vgg11", "module:factory"), settings with the name among them, or a network in memory, which
    stays as it is. `cut` may be left out where a network that is built in has a default. `data` gives the calibration
    images and the number of classes: the name of a dataset, settings with the name among them, the dataset, or for a
    network in memory the images themselves; that network gets them in the shape that they have. `codec` is a codec, or
    its text, "sgq:groups=8,bits=4"; `board` a name. `seed` decides fresh weights, calibration images and codebooks.
    UsageError, DataError and ExportError.
    """
    coding, settings = as_coding(codec), as_board(board)
    if isinstance(model, (str, NamedNetwork)):
        if isinstance(data, CalibrationImages):
            raise UsageError(f"{model} is built for a dataset, and got images: give data a dataset or its name")
        network = NamedNetwork(model) if isinstance(model, str) else model
        network = network._replace(cut=cut or network.cut)
        return export_named(path, network, _calibration(data, seed), coding, settings, seed=seed, overwrite=overwrite)
    name = type(model).__name__
    if cut is None:
        raise UsageError(f"{name} has no default cut: name the layer to cut after, as model.named_modules() has it")
    if not isinstance(data, CalibrationImages):
        calibration = _calibration(data, seed)
        _, channels, height, width = calibration.dataset.train_images.shape
        data = calibration_images(calibration, (channels, height, width), seed)
    return build_bundle(path, Network(model, name, cut), data, coding, settings, seed=seed, overwrite=overwrite)


def _calibration(data: str | NamedData | Dataset | Calibration, seed: int) -> Calibration:
    if isinstance(data, Calibration):
        return data
    if isinstance(data, Dataset):
        return Calibration(data)
    return (NamedData(data) if isinstance(data, str) else data).load(seed)

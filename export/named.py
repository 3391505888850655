"""A model by name, a dataset, a codec and a board -> a bundle: what `edgekit export` does."""

from edgekit.bundle import Bundle, check_writable
from edgekit.data import images
from edgekit.data.base import Dataset
from edgekit.data.partition import stratified
from edgekit.errors import UsageError
from edgekit.export.models.registry import build, default_cut
from edgekit.export.settings import BoardSettings, Calibration, CalibrationImages, Coding, NamedNetwork, Network


def export_named(
    path: str,
    network: NamedNetwork,
    calibration: Calibration,
    coding: Coding,
    board: BoardSettings = BoardSettings(),
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Bundle:
    """The bundle of a network by name, built for the classes of a dataset, written to the folder `path`.

    `seed` decides fresh weights, the calibration images and the first codebooks. UsageError and ExportError.
    """
    name, dataset = network.name, calibration.dataset
    cut = network.cut or default_cut(name)
    if cut is None:
        raise UsageError(f"{name} has no default cut: choose one with --cut; `edgekit cuts {name}` lists them")
    board = board._replace(device=board.profile)
    check_writable(path, overwrite)
    shape = shape_of(network, dataset)
    classes = len(dataset.classes)
    if network.classes not in (None, classes):
        raise UsageError(f"{name} for {network.classes} classes, and {dataset.name} has {classes}: expected as many")
    chosen = calibration_images(calibration, shape, seed)
    # Only now what imports torch, which takes seconds: mistakes show at once.
    from edgekit.export.build import build_bundle
    from edgekit.export.models.weights import head_weights

    module = build(name, shape, classes, seed, network.weights, dataset.classes)
    head = head_weights(network.weights) if network.weights else {}
    return build_bundle(path, Network(module, name, cut, head), chosen, coding, board, seed=seed, overwrite=overwrite)


def calibration_images(calibration: Calibration, shape: tuple[int, int, int], seed: int) -> CalibrationImages:
    """The images that `calibration` asks for, drawn by `seed` and fitted to `shape` (C,H,W); UsageError."""
    dataset, count, mean, std = calibration
    for option, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != shape[0]:
            raise UsageError(f"--{option} of {len(values)} numbers for {shape[0]} channels: expected one per channel")
    if count < 2:
        raise UsageError(f"{count} calibration images: expected at least 2")
    chosen = stratified(dataset.train_labels, min(count, len(dataset.train_labels)), seed)
    small = dataset._replace(train_images=dataset.train_images[chosen], train_labels=dataset.train_labels[chosen])
    fitted = images.fit(small, shape)
    return CalibrationImages(
        fitted.train_images, mean or fitted.mean, std or fitted.std, len(dataset.classes), fitted.train_labels,
        dataset.classes,
    )  # fmt: skip


def shape_of(network: NamedNetwork, dataset: Dataset) -> tuple[int, int, int]:
    """(C,H,W) of the images that `network` takes, where it learns `dataset`; UsageError."""
    return parse_shape(network.input_shape) if network.input_shape else default_shape(dataset)


def default_shape(dataset: Dataset) -> tuple[int, int, int]:
    """The dataset's channels; 28 px stay 28, anything else up to 64 px becomes 32, larger images 224."""
    _, channels, height, width = dataset.train_images.shape
    side = max(height, width)
    return (channels, *((28, 28) if side == 28 else (32, 32) if side <= 64 else (224, 224)))


def parse_shape(text: str) -> tuple[int, int, int]:
    """(C,H,W) of "C,H,W"; UsageError for anything else."""
    try:
        c, h, w = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"input shape '{text}': expected C,H,W, for example 3,32,32") from None
    if c not in (1, 3):
        raise UsageError(f"input shape {c},{h},{w}: expected 1 or 3 channels")
    return c, h, w

"""A model by name, a dataset, a codec and a board -> a bundle: what `edgekit export` does."""

from typing import TYPE_CHECKING

from edgekit.bundle import Bundle, check_writable
from edgekit.codecs.base import FeatureCodec
from edgekit.data import images
from edgekit.data.base import Dataset
from edgekit.data.partition import stratified
from edgekit.device_profiles.registry import profile
from edgekit.errors import UsageError
from edgekit.export.models.registry import build, default_cut

if TYPE_CHECKING:
    from edgekit.export.rate.choose import Goal


def export_named(
    name: str,
    path: str,
    *,
    cut: str | None,
    dataset: Dataset,
    codec: FeatureCodec,
    input_shape: str | None,
    calibration: int,
    seed: int,
    overwrite: bool,
    weights: str | None = None,
    device: str = "cpu",
    norm: str | None = None,
    batch_size: int = 32,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    significance: str | None = None,
    goal: "Goal | None" = None,
) -> Bundle:
    """Builds model `name` for `dataset`, and exports it cut at `cut` (or its default) for the profile `device`.

    `name` is built in or "module:factory"; its weights come from the safetensors file `weights`, or are drawn by
    `seed`. `input_shape` is "C,H,W" or None for `default_shape`; `calibration` training images give the first codec
    tables, and with their labels the `significance` ("gradient" or "gate") of channels; `mean` and `std` per channel,
    in units of 0..1, default to the dataset's. With a `goal`, groups and bits are chosen. UsageError and ExportError.
    """
    cut = cut or default_cut(name)
    if cut is None:
        raise UsageError(f"{name} has no default cut: choose one with --cut; `edgekit cuts {name}` lists them")
    board = profile(device)
    check_writable(path, overwrite)
    shape = parse_shape(input_shape) if input_shape else default_shape(dataset)
    for option, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != shape[0]:
            raise UsageError(f"--{option} of {len(values)} numbers for {shape[0]} channels: expected one per channel")
    if calibration < 2:
        raise UsageError(f"{calibration} calibration images: expected at least 2")
    chosen = stratified(dataset.train_labels, min(calibration, len(dataset.train_labels)), seed)
    small = dataset._replace(train_images=dataset.train_images[chosen], train_labels=dataset.train_labels[chosen])
    fitted = images.fit(small, shape)
    # Only now what imports torch, which takes seconds: mistakes show at once.
    from edgekit.export.build import build_bundle

    return build_bundle(
        path,
        build(name, shape, len(dataset.classes), seed, weights),
        name=name,
        cut=cut,
        images=fitted.train_images,
        mean=mean or fitted.mean,
        std=std or fitted.std,
        classes=len(dataset.classes),
        codec=codec,
        seed=seed,
        overwrite=overwrite,
        device=board,
        norm=norm,
        batch_size=batch_size,
        labels=fitted.train_labels,
        significance=significance,
        goal=goal,
    )


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

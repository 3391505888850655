"""A built-in model by name, a dataset, and a codec -> a bundle: what `edgekit export` does."""

from edgekit.bundle import Bundle, check_writable
from edgekit.codecs.base import FeatureCodec
from edgekit.data import images
from edgekit.data.base import Dataset
from edgekit.data.partition import stratified
from edgekit.errors import UsageError
from edgekit.export.build import build_bundle
from edgekit.export.models.registry import build, default_cut


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
) -> Bundle:
    """Builds model `name` for `dataset`, fresh weights by `seed`, and exports it cut at `cut` (or its default).

    `input_shape` is "C,H,W" or None for `default_shape`; `calibration` training images give the first codec tables.
    """
    default = default_cut(name)
    check_writable(path, overwrite)
    shape = _parse(input_shape) if input_shape else default_shape(dataset)
    if calibration < 2:
        raise UsageError(f"{calibration} calibration images: expected at least 2")
    chosen = stratified(dataset.train_labels, min(calibration, len(dataset.train_labels)), seed)
    small = dataset._replace(train_images=dataset.train_images[chosen], train_labels=dataset.train_labels[chosen])
    fitted = images.fit(small, shape)
    return build_bundle(
        path,
        build(name, shape, len(dataset.classes), seed),
        name=name,
        cut=cut or default,
        images=fitted.train_images,
        mean=fitted.mean,
        std=fitted.std,
        classes=len(dataset.classes),
        codec=codec,
        seed=seed,
        overwrite=overwrite,
    )


def default_shape(dataset: Dataset) -> tuple[int, int, int]:
    """The dataset's channels; 28 px stay 28, anything else up to 64 px becomes 32, larger images 224."""
    _, channels, height, width = dataset.train_images.shape
    side = max(height, width)
    return (channels, *((28, 28) if side == 28 else (32, 32) if side <= 64 else (224, 224)))


def _parse(text: str) -> tuple[int, int, int]:
    try:
        c, h, w = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"input shape '{text}': expected C,H,W, for example 3,32,32") from None
    if c not in (1, 3):
        raise UsageError(f"input shape {c},{h},{w}: expected 1 or 3 channels")
    return c, h, w

"""Look: what a device's batch looks like, in a few numbers."""

import math
from typing import NamedTuple

import numpy as np
import torch

from edgekit.bundle import Bundle

#: Images with less variety than this are all the same image, but for rounding.
ALIKE = 1e-5
#: Coherence is told of batches of this many images or more: of fewer, it varies too much.
FEWEST = 12


class Look(NamedTuple):
    """A batch of features (n,C,h,w)."""

    images: int
    finite: bool
    #: Root mean square of all values.
    size: float
    #: How much images differ from one another: variance at each value's place, relative to the mean square.
    variety: float
    #: How much more alike two images are than if each of their values varied by itself, 1 being not at all: about 1 to
    #: 8 for white noise, 8 to 1000 for images of anything. None for fewer than `FEWEST` images, or all the same.
    coherence: float | None
    #: (n,C) f32, the mean of each image's channels.
    outline: np.ndarray


def look_at(feature: torch.Tensor) -> Look:
    """The look of `feature` (n,C,h,w) f32, channels in the network's order; of one that is not finite little is told.

    Coherence: mean over pairs of images of the squared cosine between them, seen from the mean image, divided by what
    that is for independent values of the same variances, ``sum(v**2) / sum(v)**2``. It does not change with the
    feature's scale.
    """
    n = len(feature)
    outline = feature.mean((2, 3)).cpu().numpy()
    square = float(feature.square().mean())
    if not math.isfinite(square):
        return Look(n, False, math.inf, 0.0, None, outline)
    flat = feature.reshape(n, -1)
    centred = flat - flat.mean(0)
    variances = centred.square().mean(0)
    variety = float(variances.mean()) / square if square else 0.0
    coherence = None
    if n >= FEWEST and variety > ALIKE:
        products = centred @ centred.T
        lengths = products.diagonal().clamp_min(torch.finfo(products.dtype).tiny).sqrt()
        # Seen from their own mean, even unrelated images have cosines of -1 / (n - 1).
        cosines = products / lengths[:, None] / lengths + 1 / (n - 1)
        squared = (cosines.square().sum() - cosines.diagonal().square().sum()) / (n * (n - 1))
        alone = variances.square().sum() / variances.sum().square()
        coherence = float(squared / alone)
    return Look(n, True, math.sqrt(square), variety, coherence, outline)


def repeated(before: np.ndarray, now: np.ndarray) -> float:
    """Share of the images whose outline in `now` (n,C) is most like that of the same place in `before` (n,C).

    1 for the same images in the same order, also when the front half learned in between; about 1/n for others.
    """
    shapes = []
    for outline in (before, now):
        centred = outline - outline.mean(0)
        length = np.sqrt(np.square(centred).sum(1, keepdims=True))
        shapes.append(centred / np.maximum(length, np.finfo(np.float32).tiny))
    nearest = (shapes[1] @ shapes[0].T).argmax(1)
    return float((nearest == np.arange(len(now))).mean())


def golden_size(bundle: Bundle) -> float | None:
    """Size of the feature of the bundle's golden images with the exported weights; None where it has no such images."""
    if "golden.safetensors" not in bundle.manifest["files"]:
        return None
    golden = bundle.arrays("golden.safetensors")
    names = [spec.name for spec in bundle.graphs["front"].outputs]
    if not all(f"training.{name}" in golden for name in names):
        return None
    feature = bundle.codec.dequantize({name: golden[f"training.{name}"] for name in names}, bundle.tables())
    return float(np.sqrt(np.square(feature).mean()))

"""Images in a model's input shape: bilinear resizing, and grey to colour or back, with numpy alone."""

from typing import Tuple

import numpy as np

from edgekit.data.base import Dataset, chunks, mean_std
from edgekit.errors import UsageError


def fit(dataset: Dataset, input_shape: Tuple[int, int, int]) -> Dataset:
    """`dataset` with images of `input_shape` (C,H,W), and their mean and standard deviation."""
    train, test = [_fit(images, input_shape) for images in (dataset.train_images, dataset.test_images)]
    mean, std = mean_std(train)
    return dataset._replace(train_images=train, test_images=test, mean=mean, std=std)


def _fit(images: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    # Resized while they have fewer channels.
    fewer = channels(images, min(shape[0], images.shape[1]))
    return channels(resize(fewer, (shape[1], shape[2])), shape[0])


def resize(images: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """(n,C,h,w) uint8 of `images` (n,C,H,W) uint8 and `size` (h,w): bilinear, half-pixel centres, no antialiasing.

    That is ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, rounded. `images` itself is
    returned when it has that size already.
    """
    n, depth, height, width = images.shape
    if min(size) < 1:
        raise UsageError("images cannot be resized to {}: expected a height and width of at least 1".format(list(size)))
    if (height, width) == tuple(size):
        return images
    top, bottom, low = _taps(height, size[0])
    left, right, aside = _taps(width, size[1])
    low = low[:, None]
    resized = np.empty((n, depth, size[0], size[1]), dtype=np.uint8)
    for part in chunks(n, depth * max(height, size[0]) * max(width, size[1])):
        pixels = images[part].astype(np.float32)
        rows = pixels[:, :, top] * (1 - low) + pixels[:, :, bottom] * low
        resized[part] = np.rint(rows[..., left] * (1 - aside) + rows[..., right] * aside)
    return resized


def _taps(old: int, new: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `new` positions, the two of `old` positions that it lies between, and the second's weight, f32."""
    position = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0.0)
    first = np.minimum(position.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), (position - first).astype(np.float32)


def channels(images: np.ndarray, count: int) -> np.ndarray:
    """`images` (n,C,H,W) uint8 with `count` channels: grey is repeated; colour becomes luminance (ITU-R BT.601)."""
    n, depth, height, width = images.shape
    if depth == count:
        return images
    if (depth, count) == (1, 3):
        return np.repeat(images, 3, axis=1)
    if (depth, count) != (3, 1):
        raise UsageError(
            "images of {} channels cannot become images of {}: 1 to 3 and 3 to 1 are known".format(depth, count)
        )
    grey = np.empty((n, 1, height, width), dtype=np.uint8)
    for part in chunks(n, depth * height * width):
        red, green, blue = (images[part, c].astype(np.uint32) for c in range(3))
        # The standard's weights as 16-bit fractions, rounded; Pillow's mode "L" gives the same.
        grey[part, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey

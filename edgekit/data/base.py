"""Dataset: labelled images, as every reader returns them and as the device process trains on them.

::

    files --reader--> Dataset --images.fit--> Dataset in the model's input shape
    train_labels --partition.shares--> one index array per device
"""

import math
from typing import Iterator, NamedTuple, Sequence, Tuple

import numpy as np

from edgekit.errors import DataError

#: Float copies of this many values stay in the processor's cache; 1 << 22 was tried and takes five times as long.
_CHUNK_VALUES = 1 << 18


class Dataset(NamedTuple):
    """Images (n,C,H,W) uint8 with labels (n,) int64 that index `classes`.

    `mean` and `std` are those of the training images, per channel, in units where the value 255 is 1.0.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: Tuple[str, ...]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]


def dataset_from_arrays(
    name: str,
    train: Tuple[np.ndarray, np.ndarray],
    test: Tuple[np.ndarray, np.ndarray],
    classes: Sequence[str],
) -> Dataset:
    """Dataset of `train` and `test`, each (images, labels); DataError when their lengths or shapes do not match."""
    for part, (images, labels) in (("training", train), ("test", test)):
        if len(images) != len(labels) or not len(images):
            told = "{}: {} {} images and {} labels, expected as many of both and at least one"
            raise DataError(told.format(name, len(images), part, len(labels)))
    if train[0].shape[1:] != test[0].shape[1:]:
        told = "{}: test images are {}, training images {} (channels, height, width); expected the same"
        raise DataError(told.format(name, list(test[0].shape[1:]), list(train[0].shape[1:])))
    mean, std = mean_std(train[0])
    return Dataset(name, train[0], train[1], test[0], test[1], tuple(classes), mean, std)


def mean_std(images: np.ndarray) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
    """Mean and standard deviation per channel of `images` (n,C,H,W) uint8, n >= 1, in units where 255 is 1.0.

    A constant channel gets a deviation of 1, so that dividing by it is possible.
    """
    # Sums of integers are exact, so every machine that reads the same files gets the same numbers.
    total = np.zeros(images.shape[1], dtype=np.int64)
    squares = np.zeros(images.shape[1], dtype=np.int64)
    for part in chunks(len(images), images[0].size):
        values = images[part].astype(np.uint32)
        total += values.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(values).sum(axis=(0, 2, 3), dtype=np.int64)
    count = images.size // images.shape[1]
    sums = list(zip(total.tolist(), squares.tolist()))
    mean = tuple(first / count / 255 for first, _ in sums)
    return mean, tuple(math.sqrt(second * count - first * first) / count / 255 or 1.0 for first, second in sums)


def chunks(n: int, values_each: int) -> Iterator[slice]:
    """Slices that cover `n` images of `values_each` values, each of a few hundred thousand values or one image."""
    step = max(1, _CHUNK_VALUES // max(1, values_each))
    for start in range(0, n, step):
        yield slice(start, start + step)

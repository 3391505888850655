"""MNIST and Fashion-MNIST, from files in the IDX format (yann.lecun.com/exdb/mnist), plain or gzip.

======  ====  ===========================================================
offset  size  field (integers big-endian)
======  ====  ===========================================================
0       2     zero
2       1     type of the values: 8, unsigned bytes
3       1     number of dimensions, D: 3 for images, 1 for labels
4       4D    the dimensions: images, rows, columns
4+4D          the values, columns fastest
======  ====  ===========================================================
"""

import struct
from typing import Sequence, Tuple

import numpy as np

from edgekit.data.base import Dataset, dataset_from_arrays
from edgekit.data.files import class_indices, locate, read
from edgekit.errors import DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def mnist(root: str, seed: int) -> Dataset:
    """MNIST from `root`/mnist, `root`/MNIST/raw (where torchvision leaves it) or `root`."""
    return _dataset("mnist", root, ("mnist", "MNIST/raw", ""), DIGITS)


def fashion_mnist(root: str, seed: int) -> Dataset:
    """Fashion-MNIST from `root`/fashion-mnist, `root`/FashionMNIST/raw (where torchvision leaves it) or `root`."""
    return _dataset("fashion-mnist", root, ("fashion-mnist", "FashionMNIST/raw", ""), FASHION)


def _dataset(name: str, root: str, folders: Sequence[str], classes: Sequence[str]) -> Dataset:
    paths = locate(root, folders, NAMES, gz=True)
    parts = []
    for images_path, labels_path in (paths[:2], paths[2:]):
        images = read_idx(images_path, 3)
        labels = class_indices(read_idx(labels_path, 1), len(classes), labels_path, 8, 1)
        if len(images) != len(labels):
            told = "{} has {} labels, expected {}, one per image of {}"
            raise DataError(told.format(labels_path, len(labels), len(images), images_path))
        parts.append((images[:, None], labels))
    return dataset_from_arrays(name, parts[0], parts[1], classes)


def read_idx(path: str, dimensions: int) -> np.ndarray:
    """uint8 array of the IDX file at `path`, of `dimensions` dimensions, none of them 0. DataError on other bytes."""
    data = read(path)
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if len(data) >= 4 and data[:4] != magic:
        told = "{}: starts with {}, expected {} (two zeros, 08 for unsigned bytes, {} dimensions)"
        raise DataError(told.format(path, bytes(data[:4]).hex(), magic.hex(), dimensions))
    if len(data) < start:
        raise DataError("{}: {} B, an IDX header of {} dimensions takes {}".format(path, len(data), dimensions, start))
    shape: Tuple[int, ...] = struct.unpack_from(">{}I".format(dimensions), data, 4)
    # In Python's integers: the product can exceed 64 bits.
    size = 1
    for dimension in shape:
        size *= dimension
    if not size or start + size != len(data):
        told = "{}: dimensions {} at byte 4, expected none of 0 and a file of {} B; got {} B"
        raise DataError(told.format(path, list(shape), start + size, len(data)))
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)

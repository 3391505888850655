"""CIFAR-10 and CIFAR-100, binary version (www.cs.toronto.edu/~kriz/cifar.html).

A file is records without a header: one label byte (CIFAR-100: two, coarse then fine), then 3072 bytes of image, the
planes red, green, blue, each 32 rows of 32.
"""

import os
from typing import Sequence, Tuple

import numpy as np

from edgekit.class_names import class_names_error
from edgekit.data.base import Dataset, dataset_from_arrays
from edgekit.data.files import class_indices, locate, read
from edgekit.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
#: The names that come with the images in a file of their own, for copies that lack it: labels are found by name.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
CIFAR100 = tuple(_FINE.split())


def cifar10(root: str, seed: int) -> Dataset:
    """CIFAR-10 from `root`/cifar-10-batches-bin or `root`."""
    names = ["data_batch_{}.bin".format(n) for n in range(1, 6)] + ["test_batch.bin"]
    paths = locate(root, ("cifar-10-batches-bin", ""), names)
    return _dataset("cifar10", paths, (10,), CIFAR10, "batches.meta.txt")


def cifar100(root: str, seed: int) -> Dataset:
    """CIFAR-100 with its 100 fine labels, from `root`/cifar-100-binary or `root`."""
    paths = locate(root, ("cifar-100-binary", ""), ("train.bin", "test.bin"))
    return _dataset("cifar100", paths, (20, 100), CIFAR100, "fine_label_names.txt")


def _dataset(
    name: str, paths: Sequence[str], kinds: Tuple[int, ...], usual: Tuple[str, ...], names_file: str
) -> Dataset:
    """The dataset of `paths`, the test file last; `kinds` is the number of classes of each label byte.

    The classes are `usual`, unless the file `names_file` beside the images says otherwise.
    """
    parts = [_records(path, kinds) for path in paths]
    train = (np.concatenate([images for images, _ in parts[:-1]]), np.concatenate([labels for _, labels in parts[:-1]]))
    classes = _class_names(os.path.join(os.path.dirname(paths[0]), names_file), usual)
    return dataset_from_arrays(name, train, parts[-1], classes)


def _records(path: str, kinds: Tuple[int, ...]) -> Tuple[np.ndarray, np.ndarray]:
    data = read(path)
    record = len(kinds) + PIXELS
    if not data or len(data) % record:
        told = "{}: {} B, expected a multiple of {} B (one record); the last whole record ends at byte {}"
        raise DataError(told.format(path, len(data), record, len(data) // record * record))
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    labels = [class_indices(records[:, at], classes, path, at, record) for at, classes in enumerate(kinds)]
    return np.ascontiguousarray(records[:, len(kinds) :]).reshape(-1, *SHAPE), labels[-1]


def _class_names(path: str, usual: Tuple[str, ...]) -> Tuple[str, ...]:
    """The class names, one a line of the file at `path`; `usual` when there is no such file."""
    if not os.path.exists(path):
        return usual
    try:
        names = read(path).decode().split("\n")
    except UnicodeDecodeError as error:
        raise DataError("{}: class names are not UTF-8: {}".format(path, error)) from None
    names = [name.strip() for name in names if name.strip()]
    wrong = class_names_error(names, len(usual))
    if wrong is not None:
        raise DataError("{}: {}; they stand one a line".format(path, wrong))
    return tuple(names)

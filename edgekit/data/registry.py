"""The datasets by name, their readers imported on demand."""

import importlib
from typing import Optional, Tuple

from edgekit.data.base import Dataset, mean_std
from edgekit.data.partition import stratified
from edgekit.errors import UnknownName, UsageError

#: Name -> reader, ``(root, seed) -> Dataset``.
DATASETS = {
    "digits": "edgekit.data.digits:digits",
    "mnist": "edgekit.data.idx:mnist",
    "fashion-mnist": "edgekit.data.idx:fashion_mnist",
    "cifar10": "edgekit.data.cifar:cifar10",
    "cifar100": "edgekit.data.cifar:cifar100",
    "folder": "edgekit.data.folder:folder",
}
#: Name -> the files that DIR must have, for the datasets that are read from files.
FILES = {
    "mnist": "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
    "fashion-mnist": "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
    "cifar10": "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version)",
    "cifar100": "train.bin and test.bin (the binary version)",
    "folder": "train/CLASS/*.png and test/CLASS/*.png (or .jpg, .bmp, ...)",
}


def load(
    name: str, root: Optional[str], limit: Optional[int] = None, seed: int = 0, known: Tuple[str, ...] = ()
) -> Dataset:
    """The dataset `name`, from the files below `root`.

    `limit` keeps that many training images, drawn alike from every class; the test images stay whole. `seed` decides
    that draw, and which digits are held out as test. `known` are classes that an image folder may test on without
    training images of them. UsageError without a `root` that is needed, DataError when a file is missing or damaged.
    """
    if name not in DATASETS:
        raise UnknownName("dataset", name, DATASETS, "there are: {}".format(", ".join(sorted(DATASETS))))
    if root is None and name in FILES:
        raise UsageError("dataset '{}' is read from files: give --data DIR, where DIR has {}".format(name, FILES[name]))
    if limit is not None and limit < 1:
        raise UsageError("a limit of {} training images: expected at least 1".format(limit))
    module, function = DATASETS[name].split(":")
    options = {"known": known} if name == "folder" else {}
    dataset = getattr(importlib.import_module(module), function)(root, seed, **options)
    assert isinstance(dataset, Dataset)
    if limit is None or limit >= len(dataset.train_labels):
        return dataset
    kept = stratified(dataset.train_labels, limit, seed)
    images = dataset.train_images[kept]
    mean, std = mean_std(images)
    return dataset._replace(train_images=images, train_labels=dataset.train_labels[kept], mean=mean, std=std)

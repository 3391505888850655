"""Digits: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn (UCI, Alpaydin and Kaynak 1998).

Their file `digits.csv.gz` is read directly, because importing scikit-learn takes seconds. It has one image a line: 64
values from 0 to 16, then the label.
"""

import importlib.util
import os
from typing import Optional

import numpy as np

from edgekit.data.base import Dataset, dataset_from_arrays
from edgekit.data.files import locate, read
from edgekit.data.partition import stratified
from edgekit.errors import DataError

FILE = "digits.csv.gz"
SIDE = 8
TOP = 16


def digits(root: Optional[str], seed: int) -> Dataset:
    """Digits, from scikit-learn or from a copy of its file in `root`; a seeded fifth is the test set."""
    if root is None:
        # find_spec does not import a top-level package.
        spec = importlib.util.find_spec("sklearn")
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                "dataset 'digits' comes with scikit-learn, which is not installed: pip install scikit-learn, "
                "or give --data DIR with a copy of its sklearn/datasets/data/{}".format(FILE)
            )
        root = os.path.join(next(iter(spec.submodule_search_locations)), "datasets", "data")
    (path,) = locate(root, ("",), (FILE,))
    rows = _rows(path)
    images = np.rint(rows[:, :-1] * (255.0 / TOP)).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    labels = rows[:, -1].astype(np.int64)
    held_out = np.zeros(len(rows), dtype=bool)
    held_out[stratified(labels, len(rows) // 5, seed)] = True
    train, test = [(images[part], labels[part]) for part in (~held_out, held_out)]
    return dataset_from_arrays("digits", train, test, tuple("0123456789"))


def _rows(path: str) -> np.ndarray:
    """(n,65) uint8: pixels, label."""
    rows = []
    for number, line in enumerate(read(path).splitlines(), 1):
        try:
            row = bytes(int(value) for value in line.split(b","))
        except ValueError:
            raise DataError("{}: line {} is not numbers from 0 to 255 between commas".format(path, number)) from None
        if len(row) != SIDE * SIDE + 1 or max(row[:-1]) > TOP or row[-1] > 9:
            told = "{}: line {} has {} values, largest {}, last {}; expected {} pixels up to {} and a digit"
            raise DataError(told.format(path, number, len(row), max(row), row[-1], SIDE * SIDE, TOP))
        rows.append(row)
    if not rows:
        raise DataError("{}: empty, expected one image a line".format(path))
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, SIDE * SIDE + 1)

"""Dataset files: their paths, their bytes, and the labels in them; a DataError says what is wrong with them."""

import gzip
import os
import zlib
from typing import List, Sequence

import numpy as np

from edgekit.errors import DataError

#: Larger files are refused while they are read: a small gzip file can hold any number of bytes.
MAX_BYTES = 1 << 30
_STEP = 1 << 20


def locate(root: str, folders: Sequence[str], names: Sequence[str], gz: bool = False) -> List[str]:
    """Paths of the files `names`, all in the first of the `folders` below `root` that has any of them.

    With `gz`, NAME.gz is taken when there is no NAME. DataError lists what is missing and where.
    """
    places = [os.path.normpath(os.path.join(root, folder)) for folder in folders]
    for place in places:
        paths = [os.path.join(place, name) for name in names]
        if gz:
            paths = [path if os.path.isfile(path) else path + ".gz" for path in paths]
        missing = [name for name, path in zip(names, paths) if not os.path.isfile(path)]
        if not missing:
            return paths
        if len(missing) < len(names):
            raise DataError("{} has some of the files but no {}".format(place, ", ".join(missing)))
    raise DataError(
        "no {}{} in any of: {}".format(", ".join(names), " (plain or .gz)" if gz else "", ", ".join(places))
    )


def read(path: str) -> bytearray:
    """Bytes of the file at `path`, decompressed if its name ends in .gz; at most MAX_BYTES of them."""
    data = bytearray()
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as stream:
            while len(data) <= MAX_BYTES:
                piece = stream.read(_STEP)
                if not piece:
                    return data
                data += piece
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            "{}: cannot be read after {} decompressed B: {}; fetch the file again".format(path, len(data), error)
            if path.endswith(".gz")
            else "{}: cannot be read: {}".format(path, error)
        ) from None
    raise DataError("{}: more than {} B, expected a dataset file of at most that".format(path, MAX_BYTES))


def class_indices(raw: np.ndarray, classes: int, path: str, start: int, stride: int) -> np.ndarray:
    """(n,) int64 labels from the bytes `raw` (n,) uint8; DataError when one is not below `classes`.

    In the file at `path` the first is at byte `start`, and they are `stride` bytes apart: the message says where.
    """
    wrong = np.flatnonzero(raw >= classes)
    if wrong.size:
        told = "{}: label {} at byte {}, expected 0 to {}"
        raise DataError(told.format(path, raw[wrong[0]], start + stride * int(wrong[0]), classes - 1))
    return raw.astype(np.int64)

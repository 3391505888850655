"""Labels of a batch <-> bytes: one byte each, or two little-endian where there are more than 256 classes.

>>> pack_labels(np.array([3, 0, 9]), classes=10).hex()
'030009'
"""

from typing import Any

import numpy as np

from edgekit.errors import PayloadError


def pack_labels(labels: np.ndarray, classes: int) -> bytes:
    """Bytes of `labels` (n,), whole numbers from 0 below `classes`."""
    packed: bytes = labels.astype(_dtype(classes)).tobytes()
    return packed


def unpack_labels(raw: bytes, images: int, classes: int) -> np.ndarray:
    """(images,) labels from the bytes of `pack_labels`. PayloadError on any other bytes."""
    dtype = _dtype(classes)
    if images < 1 or len(raw) != images * dtype.itemsize:
        raise PayloadError("{} B of labels for {} images, expected {} B each".format(len(raw), images, dtype.itemsize))
    labels = np.frombuffer(raw, dtype)
    if labels.max() >= classes:
        first = int(np.argmax(labels >= classes))
        raise PayloadError("label {}, expected below {}".format(labels[first], classes), first * dtype.itemsize)
    return labels


def _dtype(classes: int) -> "np.dtype[Any]":
    return np.dtype("u1" if classes <= 256 else "<u2")

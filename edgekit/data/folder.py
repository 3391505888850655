"""A folder of images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png (or ROOT/val), decoded with Pillow.

Classes are the folders of ROOT/train, in order of name. A device may also have test images of classes that it has no
training images of, where a bundle knows these classes.

All images become as large as the first training image (bilinear, aspect ratio not kept) and take its number of
channels: 1 if it is grey, else 3. Transparency is dropped.
"""

import os
import struct
import warnings
import zlib
from typing import List, Sequence, Tuple

import numpy as np

from edgekit.data.base import Dataset, dataset_from_arrays
from edgekit.data.images import channels, resize
from edgekit.errors import DataError, UsageError

#: Files with other endings are skipped.
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm")
#: Decoded images are held in memory; a folder that would take more bytes is refused.
MAX_BYTES = 1 << 32
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM")
#: Pillow's modes of 8 bits a value or less, and the channels they become.
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3}

_Files = List[Tuple[str, int]]


def folder(root: str, seed: int, known: Sequence[str] = ()) -> Dataset:
    """The images below `root`; DataError names the file that cannot be decoded.

    `known` are the classes that test images may have without training images of them.
    """
    train_root = os.path.join(root, "train")
    test_root = os.path.join(root, "test")
    if not os.path.isdir(test_root):
        test_root = os.path.join(root, "val")
    if not os.path.isdir(train_root) or not os.path.isdir(test_root):
        raise DataError("{}: expected folders train and test (or val), each with one folder per class".format(root))
    trained, tested = _subfolders(train_root), _subfolders(test_root)
    unknown = sorted(set(tested) - {*trained, *known})
    if unknown:
        raise DataError("{}: classes {} are not in {}".format(test_root, ", ".join(unknown), train_root))
    classes = sorted({*trained, *tested})
    train, test = _files(train_root, classes), _files(test_root, classes)
    bare = sorted(set(trained) - {classes[label] for _, label in train})
    if bare or not train or not test:
        raise DataError(
            "{}: no image; expected files ending in {}".format(
                os.path.join(train_root, bare[0]) if bare else test_root if train else train_root,
                ", ".join(ENDINGS),
            )
        )
    shape = _decode(train[0][0]).shape
    size = (len(train) + len(test)) * shape[0] * shape[1] * shape[2]
    if size > MAX_BYTES:
        told = "{}: {} images of {} (channels, height, width) take {} B, expected at most {}: scale them down"
        raise DataError(told.format(root, len(train) + len(test), list(shape), size, MAX_BYTES))
    return dataset_from_arrays(
        os.path.basename(os.path.abspath(root)), _read(train, shape), _read(test, shape), classes
    )


def _subfolders(path: str) -> List[str]:
    return [name for name in _listdir(path) if os.path.isdir(os.path.join(path, name))]


def _files(path: str, classes: Sequence[str]) -> _Files:
    files = []
    for label, name in enumerate(classes):
        place = os.path.join(path, name)
        if os.path.isdir(place):
            files += [(os.path.join(place, file), label) for file in _listdir(place) if file.lower().endswith(ENDINGS)]
    return files


def _listdir(path: str) -> List[str]:
    """Names in the folder `path`, sorted, without hidden files."""
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))
    except OSError as error:
        raise DataError("{}: cannot be listed: {}".format(path, error)) from None


def _read(files: _Files, shape: Tuple[int, ...]) -> Tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(files), *shape), dtype=np.uint8)
    for n, (path, _) in enumerate(files):
        images[n] = resize(channels(_decode(path)[None], shape[0]), (shape[1], shape[2]))[0]
    return images, np.array([label for _, label in files], dtype=np.int64)


def _decode(path: str) -> np.ndarray:
    """The pixels of the image at `path`, (C,H,W) uint8 with C 1 or 3."""
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("image folders are decoded with Pillow, which is missing: pip install 'Pillow>=8'") from None
    # Pillow's readers raise all of these on damaged files.
    damaged = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, AttributeError,
               struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning)  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                depth = _CHANNELS.get(image.mode)
                mode = image.mode
                pixels = np.asarray(image.convert("L" if depth == 1 else "RGB"))
    except damaged as error:
        raise DataError("{}: cannot be decoded: {}".format(path, error)) from None
    if depth is None:
        raise DataError("{}: pixels are of mode '{}', expected 8 bits a value".format(path, mode))
    return pixels[None] if depth == 1 else pixels.transpose(2, 0, 1)

"""Augmentation: training images flipped and cropped at random, so that a network seldom sees the same image twice.

::

    image (C,H,W) --crop:N, padded with its reflection--> (C,H+2N,W+2N) --cut out anywhere--> (C,H,W)
                                                                        --flip, mirrored or not--> (C,H,W)
"""

import re
from typing import Dict, NamedTuple, Sequence

import numpy as np

from edgekit.errors import UnknownName, UsageError

#: What there is; "crop" takes a number of pixels.
KINDS = ("flip", "crop")
EXPECTED = "expected flip, crop:PIXELS, or both with a comma between, for example flip,crop:4"


class Augmentation(NamedTuple):
    """What is done to each image of a training batch."""

    #: Whether half of the images are mirrored, left to right.
    flip: bool = False
    #: An image is moved by up to so many pixels each way; what comes in at the edges is its reflection.
    crop: int = 0

    def check(self, image: Sequence[int]) -> None:
        """UsageError for an image (C,H,W) that is too small to be reflected by `crop` pixels."""
        height, width = image[1:]
        if self.crop >= min(height, width):
            told = "crop:{} of images of {} x {} pixels: expected fewer pixels than that; an eighth is usual"
            raise UsageError(told.format(self.crop, height, width))

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`images` (n,C,H,W) uint8, each flipped and cropped by draws of its own.

        Image i takes the i-th three numbers of `rng`, whatever is asked for and however many images follow.
        """
        draws = rng.random((len(images), 3))
        mirrored = self.flip & (draws[:, 0] < 0.5)
        down, right = (draws[:, 1:] * (2 * self.crop + 1)).astype(np.int64).T
        (height, width), edge = images.shape[2:], (self.crop, self.crop)
        padded = np.pad(images, ((0, 0), (0, 0), edge, edge), mode="reflect")
        cut = np.empty_like(images)
        # A gather of all pixels at once takes longer for large images: its indices are eight times their bytes.
        for i, (y, x, mirror) in enumerate(zip(down.tolist(), right.tolist(), mirrored.tolist())):
            window = padded[i, :, y : y + height, x : x + width]
            cut[i] = window[:, :, ::-1] if mirror else window
        return cut


def parse_augmentation(text: str) -> Augmentation:
    """The augmentation of "flip,crop:4", in any order; UsageError for any other text.

    >>> parse_augmentation("crop:4")
    Augmentation(flip=False, crop=4)
    """
    found: Dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.partition(":")
        if name and name not in KINDS:
            raise UnknownName("augmentation", name, KINDS, EXPECTED)
        if name in found:
            raise UsageError("augmentation '{}': {} is there twice, expected once".format(text, name))
        if not re.match(r"(flip|crop:[1-9][0-9]{0,3})\Z", part):
            raise UsageError("augmentation '{}': {}".format(text, EXPECTED))
        found[name] = int(value or 0)
    return Augmentation("flip" in found, found.get("crop", 0))

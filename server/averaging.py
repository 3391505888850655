"""Averages of the devices' updates: weighted by images, and so that one device cannot carry the others away."""

from collections.abc import Callable, Sequence

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import UnknownName

#: "clipped": a device's update is at most this many times as long as the median of all.
LONGEST = 2.0
#: "trimmed": the share of the devices whose values are left out at each end.
TRIMMED = 0.2


def mean(updates: Sequence[Arrays], images: Sequence[int]) -> Arrays:
    """The mean, each update counted by its images (McMahan et al. 2017, Algorithm 1)."""
    total = sum(images)
    return {
        name: sum((np.float32(n / total) * update[name] for update, n in zip(updates, images, strict=True)),
                  np.zeros_like(updates[0][name]))
        for name in updates[0]
    }  # fmt: skip


def clipped(updates: Sequence[Arrays], images: Sequence[int]) -> Arrays:
    """The mean of the updates, those far longer than the median of all made shorter (Sun et al. 2019, section 4).

    An update's length is that per image, so that a device of many images is no outlier. Two devices have no median that
    says which of them is wrong: nothing is clipped.
    """
    if len(updates) < 3:
        return mean(updates, images)
    lengths = [length(update) / n for update, n in zip(updates, images, strict=True)]
    longest = LONGEST * float(np.median(lengths))
    shorter = [min(1.0, longest / each) if each else 1.0 for each in lengths]
    return mean(
        [{name: np.float32(by) * array for name, array in update.items()}
         for update, by in zip(updates, shorter, strict=True)],
        images,
    )  # fmt: skip


def trimmed(updates: Sequence[Arrays], images: Sequence[int]) -> Arrays:
    """Value by value the mean without the largest and smallest ones (Yin et al. 2018); images are not counted."""
    out = max(1, int(TRIMMED * len(updates))) if len(updates) >= 3 else 0
    averaged = {}
    for name in updates[0]:
        values = np.sort(np.stack([update[name] for update in updates]), axis=0)
        averaged[name] = np.asarray(values[out : len(values) - out].mean(axis=0, dtype=np.float32))
    return averaged


#: Name -> the average of updates and of the images that each was learned from.
AVERAGES: dict[str, Callable[[Sequence[Arrays], Sequence[int]], Arrays]] = {
    "mean": mean, "clipped": clipped, "trimmed": trimmed,
}  # fmt: skip


def check_average(name: str) -> None:
    """Raises UnknownName unless `name` is in `AVERAGES`."""
    if name not in AVERAGES:
        raise UnknownName("average", name, AVERAGES, "there are: {}".format(", ".join(sorted(AVERAGES))))


def length(update: Arrays) -> float:
    """Euclidean length of all values of `update`."""
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values())))

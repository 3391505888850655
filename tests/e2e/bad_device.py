"""A fake of a device that has gone wrong: ``python bad_device.py BUNDLE --bad KIND ...``, else as ``edgekit run``.

Everything but its images or its features is the real device process.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.data import registry
from edgekit.data.base import Dataset
from edgekit.runtime import __main__ as program
from edgekit.runtime.front import Forward
from edgekit.runtime.learn import FrontHalf
from edgekit.runtime.loop import Device

#: How often the one batch is sent.
TIMES = 257
Rng = np.random.Generator


def black(dataset: Dataset, rng: Rng) -> Dataset:
    """A camera whose lens is covered."""
    return dataset._replace(train_images=np.zeros_like(dataset.train_images))


def noise(dataset: Dataset, rng: Rng) -> Dataset:
    """A camera that gives white noise."""
    shape = dataset.train_images.shape
    return dataset._replace(train_images=rng.integers(0, 256, shape, dtype=np.uint8))


def shuffled(dataset: Dataset, rng: Rng) -> Dataset:
    """Labels that belong to other images."""
    return dataset._replace(train_labels=rng.permutation(dataset.train_labels))


IMAGES: dict[str, Callable[[Dataset, Rng], Dataset]] = {"black": black, "noise": noise, "shuffled": shuffled}


def spoil_images(kind: str) -> None:
    load = registry.load

    def spoiled(*given: Any) -> Dataset:
        return IMAGES[kind](load(*given), np.random.default_rng(9))

    registry.load = spoiled  # type: ignore[assignment]


def repeat() -> None:
    """The first batch, again and again."""
    batches = Device.batches

    def same(self: Device, n: int, steps: int) -> list[np.ndarray]:
        return [batches(self, n, steps)[0]] * TIMES

    Device.batches = same  # type: ignore[method-assign]


def nan() -> None:
    """Features that are no numbers (codec raw)."""
    forward = FrontHalf.forward

    def broken(self: FrontHalf, image: np.ndarray) -> Forward:
        made = forward(self, image)
        return made._replace(codes={name: np.full_like(codes, np.nan) for name, codes in made.codes.items()})

    FrontHalf.forward = broken  # type: ignore[method-assign]


if __name__ == "__main__":
    at = sys.argv.index("--bad")
    kind = sys.argv[at + 1]
    del sys.argv[at : at + 2]
    if kind in IMAGES:
        spoil_images(kind)
    else:
        {"repeat": repeat, "nan": nan}[kind]()
    sys.exit(program.main(sys.argv[1:]))

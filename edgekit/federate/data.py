"""The images of one client as PyTorch takes them, and those of a test."""

from collections.abc import Iterator

import numpy as np
import torch

from edgekit.data.augment import Augmentation
from edgekit.data.base import Dataset
from edgekit.errors import UsageError

#: Images of a test's batch.
TESTED = 250

Batch = tuple[torch.Tensor, torch.Tensor]


class Data:
    """Images (n,C,H,W) uint8 with labels (n,) int64; `mean` and `std` (C,) are in units where the value 255 is 1."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, dataset: Dataset, device: str = "cpu") -> None:
        self._images, self._labels, self._dataset, self._device = images, labels, dataset, device
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) * 255
            for values in (dataset.mean, dataset.std)
        )

    def __len__(self) -> int:
        return len(self._labels)

    def split(self, share: float, *seed: int) -> tuple["Data", "Data"]:
        """Two parts without an image in common, drawn at random: the rest, and the `share` to validate by.

        UsageError where fewer than 2 images were left to train on, or none to validate by though a share is asked for.
        """
        order = np.random.RandomState(list(seed)).permutation(len(self))
        held = round(share * len(self))
        if len(self) - held < 2 or (share and not held):
            raise UsageError(
                f"a client has {len(self)} images, {held} of them to validate by: expected at least 2 others, and 1 to "
                "validate by where a share is asked for; take more images or fewer clients"
            )
        parts = (np.sort(order[held:]), np.sort(order[:held]))
        rest, validation = (Data(self._images[part], self._labels[part], self._dataset, self._device) for part in parts)
        return rest, validation

    def steps(self, most: int) -> int:
        """Batches of one pass, each of at most `most` images, or of one more where else one had a single image."""
        return max(1, min(-(-len(self) // most), len(self) // 2))

    def shuffled(self, most: int, rng: np.random.Generator, augment: Augmentation) -> Iterator[Batch]:
        """One pass in a random order, in `steps` batches, each image augmented."""
        for indices in np.array_split(rng.permutation(len(self)), self.steps(most)):
            yield self._batch(augment(self._images[indices], rng), self._labels[indices])

    def in_order(self) -> Iterator[Batch]:
        """All images, as they are."""
        for start in range(0, len(self), TESTED):
            part = slice(start, start + TESTED)
            yield self._batch(self._images[part], self._labels[part])

    def _batch(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        """Normalised images (n,C,H,W) f32, and labels (n,)."""
        normal = torch.from_numpy(images).to(self._device, torch.float32).sub_(self._mean).div_(self._std)
        return normal.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels).to(self._device)

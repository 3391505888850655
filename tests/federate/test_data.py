"""The images of a client: parts that share none, and batches that hold all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.augment import Augmentation
from edgekit.data.base import Dataset
from edgekit.errors import UsageError
from edgekit.federate.data import Data
from edgekit.runtime.front import normalise


def numbered(n: int, few: Dataset) -> Data:
    """Images that all differ, labelled by their number."""
    return Data(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(4, 2), np.arange(n), few)


def labels_of(data: Data) -> list[int]:
    return [int(label) for _, labels in data.in_order() for label in labels]


def test_a_validation_part_shares_no_image_with_the_rest(few: Dataset) -> None:
    rest, validation = numbered(50, few).split(0.2, 3)
    assert (len(rest), len(validation)) == (40, 10)
    assert sorted(labels_of(rest) + labels_of(validation)) == list(range(50))
    again, other = numbered(50, few).split(0.2, 3), numbered(50, few).split(0.2, 4)
    assert labels_of(again[1]) == labels_of(validation) != labels_of(other[1])
    assert len(numbered(50, few).split(0.0, 0)[1]) == 0


@pytest.mark.parametrize(("images", "share"), [(1, 0.0), (2, 0.5), (3, 0.1)])
def test_too_few_images_are_refused(few: Dataset, images: int, share: float) -> None:
    with pytest.raises(UsageError, match="expected at least 2"):
        numbered(images, few).split(share, 0)


@given(n=st.integers(2, 70), most=st.integers(2, 20))
def test_batches_hold_every_image_once_and_two_at_least(few: Dataset, n: int, most: int) -> None:
    data = numbered(n, few)
    batches = list(data.shuffled(most, np.random.default_rng(0), Augmentation()))
    assert len(batches) == data.steps(most)
    sizes = [len(labels) for _, labels in batches]
    assert min(sizes) >= 2 and max(sizes) <= most + (most % 2 or n % 2) and max(sizes) - min(sizes) <= 1
    assert sorted(int(label) for _, labels in batches for label in labels) == list(range(n))


def test_images_are_normalised_as_on_a_device(few: Dataset, data: Data) -> None:
    images, labels = next(data.in_order())
    mean, std = (np.array(values, dtype=np.float32) for values in (few.mean, few.std))
    np.testing.assert_allclose(images.numpy(), normalise(few.train_images[:250], mean, std), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(labels.numpy(), few.train_labels[:250])

"""Labels by name: whatever folders a device has, its labels are those of the bundle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data import registry
from edgekit.data.base import Dataset, dataset_from_arrays
from edgekit.data.classes import mapped
from edgekit.errors import DataError

PETS = ("cat", "dog", "owl")


def dataset(classes, train, test):
    """One image for each label of `train` and `test`; its pixel is the label."""
    parts = [(np.array(part, np.uint8).reshape(-1, 1, 1, 1), np.array(part, np.int64)) for part in (train, test)]
    return dataset_from_arrays("mine", parts[0], parts[1], classes)


@given(st.data(), st.lists(st.text(max_size=4), min_size=1, max_size=9, unique=True))
def test_labels_keep_their_names(data, names):
    classes = data.draw(st.permutations(names))[: data.draw(st.integers(1, len(names)))]
    labels = st.lists(st.integers(0, len(classes) - 1), min_size=1, max_size=6)
    before = dataset(classes, data.draw(labels), data.draw(labels))
    after = mapped(before, tuple(names))
    assert isinstance(after, Dataset) and after.classes == tuple(names)
    for part in ("train_labels", "test_labels"):
        was, now = getattr(before, part), getattr(after, part)
        assert [names[label] for label in now] == [classes[label] for label in was] and now.dtype == np.int64
    assert after.train_images is before.train_images and after.test_images is before.test_images


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_folders_give_labels_of_the_right_names(tmp_path_factory, data):
    """The pixel of each image is the place of its class in the bundle."""
    image = pytest.importorskip("PIL.Image")
    name = st.text("abCD01 ä-", min_size=1, max_size=3).filter(lambda text: text == text.strip())
    names = tuple(data.draw(st.lists(name, min_size=1, max_size=6, unique=True)))
    some = st.lists(st.sampled_from(names), min_size=1, unique=True)
    root = tmp_path_factory.mktemp("folders")
    for part in ("train", "test"):
        for each in data.draw(some):
            (root / part / each).mkdir(parents=True)
            image.new("L", (2, 2), names.index(each)).save(root / part / each / "0.png")
    read = mapped(registry.load("folder", str(root), known=names), names)
    for images, labels in ((read.train_images, read.train_labels), (read.test_images, read.test_labels)):
        assert images[:, 0, 0, 0].tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (("cats", "dog"), PETS, r"mine: class 'cats' \(did you mean cat\?\): .* but cat, dog, owl\. Rename it"),
        (("DOG",), PETS, r"class 'DOG' \(did you mean dog\?\)"),
        (("hamster",), PETS, "class 'hamster': the bundle has no such class"),
        (("cats", "hamster"), PETS, r"class 'cats' \(did you mean cat\?\), class 'hamster': "),
        (("10",), tuple("0123456789"), "class '10': the bundle"),
        (("07",), tuple("0123456789"), r"class '07' \(did you mean 7\?\)"),
        (("²",), tuple("0123456789"), "class '²': the bundle"),
        (("\x1b[2J",), PETS, r"class '\\x1b\[2J'"),
        (tuple("abcdefghijklm"), tuple("0123456789AB"), "class 'j' and 3 more: .*, 8, 9 and 2 more"),
    ],
)
def test_a_class_that_the_bundle_lacks_is_named(classes, names, message):
    with pytest.raises(DataError, match=message):
        mapped(dataset(classes, [0], [0]), names)


def test_digits_are_digits():
    digits = registry.load("digits", None)
    same = mapped(digits, tuple("0123456789"))
    np.testing.assert_array_equal(same.train_labels, digits.train_labels)
    np.testing.assert_array_equal(same.test_labels, digits.test_labels)

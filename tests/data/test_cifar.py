"""CIFAR-10 and CIFAR-100, binary version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data.base import Dataset
from edgekit.data.cifar import CIFAR10, CIFAR100, cifar10, cifar100
from edgekit.errors import DataError

RNG = np.random.default_rng(10)
IMAGES = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
BATCHES = [f"data_batch_{n}.bin" for n in range(1, 6)]


def _record(image, *labels):
    return bytes(labels) + image.tobytes()


def _cifar10(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate([*BATCHES, "test_batch.bin"]):
        (folder / name).write_bytes(_record(IMAGES[n], n) + _record(IMAGES[n][::-1], 9))
    return folder


def _cifar100(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.bin").write_bytes(_record(IMAGES[0], 19, 99) + _record(IMAGES[1], 0, 7))
    (folder / "test.bin").write_bytes(_record(IMAGES[2], 5, 50))
    return folder


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_cifar10_is_the_five_batches_in_order(tmp_path, below):
    _cifar10(tmp_path / below)
    dataset = cifar10(str(tmp_path), 0)
    np.testing.assert_array_equal(dataset.train_images[::2], IMAGES[:5])
    np.testing.assert_array_equal(dataset.train_images[1::2], IMAGES[:5, ::-1])
    assert dataset.train_labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert dataset.test_labels.tolist() == [5, 9] and dataset.test_labels.dtype == np.int64
    assert dataset.classes == CIFAR10 and len(set(CIFAR10)) == 10
    assert dataset.train_images.flags.c_contiguous and dataset.test_images.flags.c_contiguous


@pytest.mark.parametrize("below", [".", "cifar-100-binary"])
def test_cifar100_takes_the_fine_label(tmp_path, below):
    _cifar100(tmp_path / below)
    dataset = cifar100(str(tmp_path), 0)
    np.testing.assert_array_equal(dataset.train_images, IMAGES[:2])
    assert dataset.train_labels.tolist() == [99, 7] and dataset.test_labels.tolist() == [50]
    assert dataset.classes == CIFAR100 == tuple(sorted(set(CIFAR100))) and len(CIFAR100) == 100


def test_class_names_are_read_where_they_are(tmp_path):
    names = [f"class {n}" for n in range(100)]
    (_cifar100(tmp_path) / "fine_label_names.txt").write_text("\n".join(names) + "\n\n")
    assert cifar100(str(tmp_path), 0).classes == tuple(names)
    (_cifar10(tmp_path) / "batches.meta.txt").write_text("\n".join(names[:10]) + "\n")
    assert cifar10(str(tmp_path), 0).classes == tuple(names[:10])


@pytest.mark.parametrize(("text", "message"), [
    (b"a\nb\n", "2 class names, expected 10"),
    (b"a\n" * 10, "class name 'a' stands there twice"),
    (b"\xff", "not UTF-8"),
])  # fmt: skip
def test_bad_class_names_are_refused(tmp_path, text, message):
    (_cifar10(tmp_path) / "batches.meta.txt").write_bytes(text)
    with pytest.raises(DataError, match=message):
        cifar10(str(tmp_path), 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "data_batch_3.bin: 0 B, expected a multiple of 3073 B"),
        (bytes(3073 + 5), "3078 B, expected .* last whole record ends at byte 3073"),
        (bytes(3073) + _record(IMAGES[0], 10), "data_batch_3.bin: label 10 at byte 3073, expected 0 to 9"),
    ],
)
def test_a_damaged_batch_says_what_is_wrong(tmp_path, data, message):
    (_cifar10(tmp_path) / BATCHES[2]).write_bytes(data)
    with pytest.raises(DataError, match=message):
        cifar10(str(tmp_path), 0)


@pytest.mark.parametrize(
    ("labels", "message"), [((20, 0), "label 20 at byte 0, expected 0 to 19"), ((0, 100), "label 100 at byte 1")]
)
def test_both_labels_of_cifar100_are_checked(tmp_path, labels, message):
    (_cifar100(tmp_path) / "test.bin").write_bytes(_record(IMAGES[0], *labels))
    with pytest.raises(DataError, match=message):
        cifar100(str(tmp_path), 0)


def test_a_missing_batch_is_named(tmp_path):
    (_cifar10(tmp_path) / BATCHES[1]).unlink()
    with pytest.raises(DataError, match=r"no data_batch_2\.bin"):
        cifar10(str(tmp_path), 0)


@settings(max_examples=60, deadline=None)
@given(head=st.binary(max_size=20), size=st.sampled_from([0, 1, 3072, 3073, 3074, 6146, 6148]), at=st.integers(0, 6148))
def test_any_bytes_are_a_dataset_or_a_data_error(tmp_path_factory, head, size, at):
    for reader, write, name in ((cifar10, _cifar10, BATCHES[4]), (cifar100, _cifar100, "train.bin")):
        root = write(tmp_path_factory.mktemp("cifar"))
        whole = (root / name).read_bytes()
        for damaged in ((head + bytes(6148))[:size], whole[:at], whole[:at] + head[:1] + whole[at + 1 :]):
            (root / name).write_bytes(damaged)
            try:
                dataset = reader(str(root), 0)
            except DataError as error:
                assert name in str(error)
                continue
            assert isinstance(dataset, Dataset)
            assert dataset.train_images.shape[1:] == (3, 32, 32)
            assert dataset.train_labels.max() < len(dataset.classes)

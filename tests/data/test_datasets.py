"""The dataset table, `load`, and what holds for every Dataset."""

import importlib
import struct

import numpy as np
import pytest

from edgekit.data.base import chunks, dataset_from_arrays, mean_std
from edgekit.data.registry import DATASETS, FILES, load
from edgekit.errors import DataError, UnknownName, UsageError


def _mnist(root, train=60, test=20):
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (n, 4, 5), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        (root / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, n, 4, 5) + images.tobytes())
        (root / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + labels.tobytes())


@pytest.mark.parametrize("name", DATASETS)
def test_every_reader_in_the_table_exists(name):
    module, function = DATASETS[name].split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", FILES)
def test_a_dataset_of_files_without_a_folder_says_which_files(name):
    with pytest.raises(UsageError, match="--data DIR") as error:
        load(name, None)
    assert FILES[name] in str(error.value)


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder_is_a_data_error_that_names_it(name, tmp_path):
    with pytest.raises(DataError) as error:
        load(name, str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_an_unknown_name_gets_near_names():
    with pytest.raises(UnknownName, match="cifar10"):
        load("cifar11", None)


def test_limit_balances_the_training_images_and_leaves_the_test_whole(tmp_path):
    _mnist(tmp_path)
    whole = load("mnist", str(tmp_path))
    part = load("mnist", str(tmp_path), limit=25, seed=7)
    assert len(part.train_labels) == len(part.train_images) == 25
    assert set(np.bincount(part.train_labels, minlength=10)) == {2, 3}
    np.testing.assert_array_equal(part.test_images, whole.test_images)
    assert (part.mean, part.std) == mean_std(part.train_images) != (whole.mean, whole.std)
    originals = {(image.tobytes(), label) for image, label in zip(whole.train_images, whole.train_labels, strict=True)}
    kept = {(image.tobytes(), label) for image, label in zip(part.train_images, part.train_labels, strict=True)}
    assert len(kept) == 25 and kept <= originals


def test_limit_is_seeded_and_takes_all_when_there_are_fewer(tmp_path):
    _mnist(tmp_path)
    first, again, other = (load("mnist", str(tmp_path), 20, seed).train_images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(load("mnist", str(tmp_path), 61).train_images) == 60


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(UsageError, match="limit"):
        load("digits", None, limit)


def test_mean_and_deviation_are_numpys(monkeypatch):
    monkeypatch.setattr("edgekit.data.base._CHUNK_VALUES", 100)
    images = np.random.default_rng(1).integers(0, 256, (37, 3, 5, 4), dtype=np.uint8)
    images[:, 2] = 7
    mean, std = mean_std(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], (images / 255).std(axis=(0, 2, 3))[:2], rtol=1e-12)
    assert std[2] == 1.0  # the same everywhere


def test_mean_and_deviation_do_not_overflow():
    images = np.full((2000, 1, 64, 64), 255, dtype=np.uint8)
    images[:1000] = 254
    mean, std = mean_std(images)
    assert mean == pytest.approx((254.5 / 255,)) and std == pytest.approx((0.5 / 255,))


@pytest.mark.parametrize("values_each", [0, 1, 1000, 1 << 30])
def test_chunks_cover_every_image_once(values_each):
    indices = np.arange(1000)
    assert np.concatenate([indices[part] for part in chunks(1000, values_each)]).tolist() == indices.tolist()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [((3, 2), (1, 1), "3 training images and 2 labels"), ((1, 1), (0, 0), "0 test images")],
)
def test_arrays_that_do_not_match_are_refused(train, test, message):
    parts = [(np.zeros((images, 1, 2, 2), np.uint8), np.zeros(labels, np.int64)) for images, labels in (train, test)]
    with pytest.raises(DataError, match=message):
        dataset_from_arrays("x", parts[0], parts[1], ["a"])


def test_images_of_two_sizes_are_refused():
    train, test = (np.zeros((1, 1, size, 2), np.uint8) for size in (2, 3))
    with pytest.raises(DataError, match=r"\[1, 3, 2\].*\[1, 2, 2\]"):
        dataset_from_arrays("x", (train, np.zeros(1, np.int64)), (test, np.zeros(1, np.int64)), ["a"])

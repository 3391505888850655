"""MNIST and Fashion-MNIST in the IDX format."""

import gzip
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data import files
from edgekit.data.base import Dataset
from edgekit.data.idx import FASHION, NAMES, fashion_mnist, mnist, read_idx
from edgekit.errors import DataError

IMAGES = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
LABELS = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)
#: The four files by name: the training files hold six images, the test files the first two of them.
FILES = {
    NAMES[0]: struct.pack(">4I", 0x803, 6, 4, 5) + IMAGES.tobytes(),
    NAMES[1]: struct.pack(">2I", 0x801, 6) + LABELS.tobytes(),
    NAMES[2]: struct.pack(">4I", 0x803, 2, 4, 5) + IMAGES[:2].tobytes(),
    NAMES[3]: struct.pack(">2I", 0x801, 2) + LABELS[:2].tobytes(),
}


def _write(folder, gz=False, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in FILES.items():
        data = changed.get(name.replace("-", "_"), data)
        (folder / (name + ".gz" if gz else name)).write_bytes(gzip.compress(data, 1) if gz else data)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("reader", "below"),
    [(mnist, "."), (mnist, "mnist"), (mnist, "MNIST/raw"), (fashion_mnist, "fashion-mnist"),
     (fashion_mnist, "FashionMNIST/raw")],
)  # fmt: skip
def test_reads_what_was_written(tmp_path, reader, below, gz):
    _write(tmp_path / below, gz)
    dataset = reader(str(tmp_path), 0)
    np.testing.assert_array_equal(dataset.train_images, IMAGES[:, None])
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    np.testing.assert_array_equal(dataset.test_images, IMAGES[:2, None])
    np.testing.assert_array_equal(dataset.test_labels, LABELS[:2])
    assert dataset.train_images.dtype == np.uint8 and dataset.train_labels.dtype == np.int64
    assert dataset.train_images.flags.writeable


def test_its_own_folder_goes_before_files_in_the_root(tmp_path):
    _write(tmp_path)
    _write(tmp_path / "fashion-mnist", train_labels_idx1_ubyte=struct.pack(">2I", 0x801, 6) + bytes([2] * 6))
    assert fashion_mnist(str(tmp_path), 0).train_labels.tolist() == [2] * 6
    assert mnist(str(tmp_path), 0).train_labels.tolist() == LABELS.tolist()
    assert fashion_mnist(str(tmp_path), 0).classes == FASHION


def test_a_missing_file_is_named(tmp_path):
    _write(tmp_path)
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(DataError, match=NAMES[3]):
        mnist(str(tmp_path), 0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (NAMES[0], b"", "0 B, an IDX header of 3 dimensions takes 16"),
        (NAMES[0], FILES[NAMES[1]], "starts with 00000801, expected 00000803"),
        (NAMES[0], b"\0\0\x0d\x03" + FILES[NAMES[0]][4:], "starts with 00000d03, expected 00000803"),
        (NAMES[0], FILES[NAMES[0]][:-1], r"dimensions \[6, 4, 5\] at byte 4.* 136 B; got 135 B"),
        (NAMES[0], FILES[NAMES[0]] + b"x", "136 B; got 137 B"),
        (NAMES[0], struct.pack(">4I", 0x803, 0, 4, 5), r"dimensions \[0, 4, 5\]"),
        (NAMES[0], struct.pack(">4I", 0x803, 2**31, 2**31, 2**2) + b"x", "dimensions .* got 17 B"),
        (NAMES[1], struct.pack(">2I", 0x801, 5) + LABELS[:5].tobytes(), "5 labels, expected 6"),
        (NAMES[1], struct.pack(">2I", 0x801, 6) + b"\1\2\3\4\5\x0a", "label 10 at byte 13, expected 0 to 9"),
        (NAMES[2], struct.pack(">4I", 0x803, 2, 5, 4) + IMAGES[:2].tobytes(), "test images are"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path, name, data, message):
    _write(tmp_path, **{name.replace("-", "_"): data})
    with pytest.raises(DataError, match=message) as error:
        mnist(str(tmp_path), 0)
    assert name in str(error.value) or "test images" in message


def test_a_truncated_gzip_file_is_named(tmp_path):
    _write(tmp_path, gz=True)
    path = tmp_path / (NAMES[0] + ".gz")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=path.name + ": cannot be read after"):
        mnist(str(tmp_path), 0)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(100000)))
    with pytest.raises(DataError, match="more than 1000 B"):
        read_idx(str(path), 1)


def test_a_folder_in_the_place_of_a_file_is_missing(tmp_path):
    (tmp_path / NAMES[0]).mkdir()
    with pytest.raises(DataError, match=NAMES[0]):
        mnist(str(tmp_path), 0)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(NAMES), gz=st.booleans())
def test_any_bytes_are_a_dataset_or_a_data_error(tmp_path_factory, data, name, gz):
    folder = tmp_path_factory.mktemp("idx")
    _write(folder, gz)
    path = folder / (name + ".gz" if gz else name)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.just(whole[:at]),
            st.integers(0, 255).map(lambda value: whole[:at] + bytes([value]) + whole[at + 1 :]),
        )
    )
    path.write_bytes(damaged)
    try:
        dataset = mnist(str(folder), 0)
    except DataError:
        return
    assert isinstance(dataset, Dataset)
    assert dataset.train_images.shape == (6, 1, 4, 5) and dataset.test_images.shape == (2, 1, 4, 5)
    assert dataset.train_labels.min() >= 0 and dataset.train_labels.max() < 10


@pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="EDGEKIT_DATA names no folder that holds mnist/")
def test_the_real_mnist():
    dataset = mnist(os.environ["EDGEKIT_DATA"], 0)
    assert dataset.train_images.shape == (60000, 1, 28, 28) and dataset.test_images.shape == (10000, 1, 28, 28)
    assert np.bincount(dataset.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.mean == pytest.approx((0.1307,), abs=1e-4) and dataset.std == pytest.approx((0.3081,), abs=1e-4)

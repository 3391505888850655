"""Digits: equal to scikit-learn's own, read without importing it."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.base import Dataset
from edgekit.data.digits import FILE, digits
from edgekit.errors import DataError


def _images_and_labels(dataset):
    images = np.concatenate([dataset.train_images, dataset.test_images]).reshape(-1, 64)
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    return sorted(zip(map(bytes, images), labels.tolist(), strict=True))


def test_holds_scikit_learns_images_scaled_to_255():
    sklearn = pytest.importorskip("sklearn.datasets")
    dataset = digits(None, 0)
    data, target = sklearn.load_digits(return_X_y=True)
    expected = np.rint(data * 255 / 16).astype(np.uint8)
    assert _images_and_labels(dataset) == sorted(zip(map(bytes, expected), target.tolist(), strict=True))
    assert dataset.train_images.max() == 255


def test_holds_out_a_fifth_of_every_class():
    dataset = digits(None, 0)
    assert dataset.train_images.shape == (1438, 1, 8, 8) and dataset.train_images.dtype == np.uint8
    assert dataset.test_images.shape == (359, 1, 8, 8) and dataset.test_labels.dtype == np.int64
    assert set(np.bincount(dataset.test_labels)) == {35, 36}


def test_the_seed_decides_what_is_held_out():
    first, again, other = (digits(None, seed).test_images for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_reads_without_importing_scikit_learn():
    code = (
        "import sys; from edgekit.data.registry import load; load('digits', None); assert 'sklearn' not in sys.modules"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits(None, 0)


def _write(root, lines):
    (root / FILE).write_bytes(gzip.compress("\n".join(lines).encode()))


def _line(label, pixel=16):
    return ",".join(["0"] * 63 + [str(pixel), str(label)])


def test_reads_a_copy_of_the_file(tmp_path):
    _write(tmp_path, [_line(n % 10) for n in range(50)])
    dataset = digits(str(tmp_path), 0)
    assert np.bincount(dataset.train_labels).tolist() == [4] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1] * 10


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1,2,3", "line 2 has 3 values"),
        (_line(10), "line 2 .* last 10"),
        (_line(1, 17), "line 2 .* largest 17"),
        (_line(1, "x"), "line 2 is not numbers"),
        (_line(1, -1), "line 2 is not numbers"),
        (_line(1, "9" * 5000), "line 2 is not numbers"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, message):
    _write(tmp_path, [_line(0), bad])
    with pytest.raises(DataError, match=message):
        digits(str(tmp_path), 0)


@given(text=st.text(alphabet="0123456789,.-\n x", max_size=400))
def test_any_text_is_a_dataset_or_a_data_error(tmp_path_factory, text):
    root = tmp_path_factory.mktemp("digits")
    _write(root, [text])
    try:
        assert isinstance(digits(str(root), 0), Dataset)
    except DataError as error:
        assert "digits" in str(error)

"""Image folders, decoded with Pillow."""

import builtins
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data import folder as module
from edgekit.data.folder import folder
from edgekit.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (8, 6, 5), dtype=np.uint8)


def _write(root, images, part="test", ending="png"):
    """Four training images of two classes, and one of the second class under `part`."""
    for n, place in enumerate(("train/b", "train/a", "train/b", "train/a", part + "/b")):
        (root / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[n]).save(root / place / f"{n}.{ending}")


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize("ending", ["png", "bmp", "ppm"])
def test_reads_what_was_written_in_order_of_name(tmp_path, part, ending):
    _write(tmp_path, RGB, part, ending)
    dataset = folder(str(tmp_path), 0)
    np.testing.assert_array_equal(dataset.train_images, RGB[[1, 3, 0, 2]].transpose(0, 3, 1, 2))
    assert dataset.train_labels.tolist() == [0, 0, 1, 1] and dataset.train_labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.test_images, RGB[[4]].transpose(0, 3, 1, 2))
    assert dataset.test_labels.tolist() == [1] and dataset.classes == ("a", "b")
    assert dataset.name == tmp_path.name


def test_reads_jpeg(tmp_path):
    _write(tmp_path, RGB, ending="JPG")
    expected = np.asarray(Image.open(tmp_path / "train" / "a" / "1.JPG"))
    np.testing.assert_array_equal(folder(str(tmp_path), 0).train_images[0], expected.transpose(2, 0, 1))


def test_grey_images_have_one_channel(tmp_path):
    _write(tmp_path, GREY)
    np.testing.assert_array_equal(folder(str(tmp_path), 0).train_images, GREY[[1, 3, 0, 2], None])


def test_all_take_size_and_channels_of_the_first(tmp_path):
    _write(tmp_path, RGB)
    Image.fromarray(np.full((12, 10), 77, np.uint8)).save(tmp_path / "train" / "a" / "3.png")
    dataset = folder(str(tmp_path), 0)
    assert dataset.train_images.shape == (4, 3, 6, 5)
    assert (dataset.train_images[1] == 77).all()


def test_other_files_are_passed_over(tmp_path):
    _write(tmp_path, RGB)
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "a" / ".hidden.png").write_text("x")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(folder(str(tmp_path), 0).train_images) == 4


def test_palettes_and_transparency_become_rgb(tmp_path):
    _write(tmp_path, RGB)
    transparent = np.concatenate([RGB[0], np.full((6, 5, 1), 128, np.uint8)], axis=2)
    Image.fromarray(transparent).save(tmp_path / "train" / "b" / "0.png")
    Image.fromarray(RGB[2]).quantize(64).save(tmp_path / "train" / "b" / "2.png")
    images = folder(str(tmp_path), 0).train_images
    np.testing.assert_array_equal(images[2:], RGB[[0, 2]].transpose(0, 3, 1, 2))


def test_sixteen_bit_images_are_refused(tmp_path):
    _write(tmp_path, GREY)
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(DataError, match=r"1\.png: pixels are of mode 'I.*expected 8 bits"):
        folder(str(tmp_path), 0)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    _write(tmp_path, RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"1\.png: cannot be decoded.*pixels"):
        folder(str(tmp_path), 0)


def test_a_folder_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    _write(tmp_path, RGB)
    monkeypatch.setattr(module, "MAX_BYTES", 5 * 90 - 1)
    with pytest.raises(DataError, match=r"5 images of \[3, 6, 5\].*take 450 B"):
        folder(str(tmp_path), 0)


def test_an_unknown_class_in_test_is_named(tmp_path):
    _write(tmp_path, RGB)
    (tmp_path / "test" / "cat").mkdir()
    with pytest.raises(DataError, match="classes cat are not in"):
        folder(str(tmp_path), 0)


def test_a_class_that_is_known_may_be_tested_alone(tmp_path):
    _write(tmp_path, RGB)
    for name in ("ape", "cat"):
        (tmp_path / "test" / name).mkdir()
        Image.fromarray(RGB[5]).save(tmp_path / "test" / name / "5.png")
    dataset = folder(str(tmp_path), 0, ("a", "ape", "b", "cat", "dog"))
    assert dataset.classes == ("a", "ape", "b", "cat")
    assert dataset.train_labels.tolist() == [0, 0, 2, 2] and dataset.test_labels.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="classes ape are not in"):
        folder(str(tmp_path), 0, ("cat", "dog"))


def test_a_class_without_images_is_named(tmp_path):
    _write(tmp_path, RGB)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(DataError, match=r"cat: no image; expected files ending in \.png"):
        folder(str(tmp_path), 0)


@pytest.mark.parametrize("empty", ["train", "test"])
def test_a_part_without_images_is_named(tmp_path, empty):
    _write(tmp_path, RGB)
    for path in sorted((tmp_path / empty).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=empty):
        folder(str(tmp_path), 0)


def test_without_pillow_says_what_to_install(tmp_path, monkeypatch):
    _write(tmp_path, RGB)
    original = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(UsageError, match="pip install 'Pillow"):
        folder(str(tmp_path), 0)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["png", "jpeg", "bmp", "gif", "ppm"]))
def test_any_bytes_are_a_dataset_or_a_data_error_with_the_name(tmp_path_factory, data, kind):
    stream = io.BytesIO()
    Image.fromarray(RGB[0]).save(stream, kind)
    whole = stream.getvalue()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.one_of(
            st.binary(max_size=100),
            st.just(whole[:at]),
            st.integers(0, 255).map(lambda value: whole[:at] + bytes([value]) + whole[at + 1 :]),
        )
    )
    root = tmp_path_factory.mktemp("folder")
    _write(root, RGB)
    (root / "train" / "b" / "2.png").write_bytes(damaged)
    try:
        dataset = folder(str(root), 0)
    except DataError as error:
        assert "2.png" in str(error)
    else:
        assert dataset.train_images.shape == (4, 3, 6, 5)

"""Resizing, channels and `fit`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data import base
from edgekit.data.base import dataset_from_arrays, mean_std
from edgekit.data.images import channels, fit, resize
from edgekit.errors import UsageError

RNG = np.random.default_rng(5)


def _images(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 999),
)
def test_resize_is_torchs(shape, size, seed):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images).double(), size=size, mode="bilinear", align_corners=False, antialias=False
    )
    resized = resize(images, size)
    assert resized.dtype == np.uint8 and resized.shape == expected.shape
    # Half a level is the rounding; the rest is float32.
    assert np.abs(resized - expected.numpy()).max() <= 0.501


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (5, 30)])
def test_chunks_do_not_change_the_result(monkeypatch, size):
    images = _images(17, 3, 9, 11)
    whole = resize(images, size), channels(images, 1)
    monkeypatch.setattr(base, "_CHUNK_VALUES", 3 * 32 * 32 * 2)
    np.testing.assert_array_equal(resize(images, size), whole[0])
    np.testing.assert_array_equal(channels(images, 1), whole[1])


def test_resize_keeps_the_images_when_the_size_is_theirs():
    images = _images(2, 3, 4, 5)
    assert resize(images, (4, 5)) is images


def test_resize_of_white_stays_white():
    assert (resize(np.full((1, 1, 7, 7), 255, np.uint8), (224, 224)) == 255).all()


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_an_empty_size_is_refused(size):
    with pytest.raises(UsageError, match="at least 1"):
        resize(_images(1, 1, 2, 2), size)


def test_grey_is_repeated():
    images = _images(3, 1, 4, 5)
    np.testing.assert_array_equal(channels(images, 3), np.concatenate([images] * 3, axis=1))


def test_luminance_is_pillows():
    pillow = pytest.importorskip("PIL.Image")
    images = _images(1, 3, 64, 64)
    expected = np.asarray(pillow.fromarray(np.ascontiguousarray(images[0].transpose(1, 2, 0))).convert("L"))
    np.testing.assert_array_equal(channels(images, 1)[0, 0], expected)


@pytest.mark.parametrize(("depth", "count"), [(1, 4), (3, 2), (4, 3)])
def test_other_channel_counts_are_refused(depth, count):
    with pytest.raises(UsageError, match=f"images of {depth} channels cannot become images of {count}"):
        channels(_images(1, depth, 2, 2), count)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("shape", [(1, 16, 12), (3, 16, 12), (1, 8, 8), (3, 8, 8)])
def test_fit_gives_the_shape_and_its_statistics(depth, shape):
    train, test = (_images(10, depth, 8, 8), np.arange(10)), (_images(4, depth, 8, 8), np.arange(4))
    dataset = fit(dataset_from_arrays("x", train, test, "0123456789"), shape)
    assert dataset.train_images.shape == (10, *shape) and dataset.test_images.shape == (4, *shape)
    assert (dataset.mean, dataset.std) == mean_std(dataset.train_images)
    assert len(dataset.mean) == shape[0]
    np.testing.assert_array_equal(dataset.train_labels, train[1])


def test_fit_to_an_impossible_shape_is_refused():
    part = (_images(2, 3, 8, 8), np.arange(2))
    with pytest.raises(UsageError, match="3 channels"):
        fit(dataset_from_arrays("x", part, part, "01"), (2, 8, 8))

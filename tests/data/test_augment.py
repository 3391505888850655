"""Flips and random crops of training images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.augment import Augmentation, parse_augmentation
from edgekit.errors import UnknownName, UsageError

BOTH = Augmentation(flip=True, crop=2)


def numbered(n, channels=3, height=6, width=7):
    """Images whose pixels are all different within a channel."""
    first = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    return np.stack([np.stack([first + 50 * c for c in range(channels)])] * n)


def choices(image, augmentation):
    """(flipped, rows down, columns right) -> bytes of what may come of `image` (C,H,W), pixel by pixel."""
    n, (_, height, width) = augmentation.crop, image.shape

    def at(place, size):
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    found = {}
    for down in range(-n, n + 1):
        for right in range(-n, n + 1):
            rows = [at(y + down, height) for y in range(height)]
            columns = [at(x + right, width) for x in range(width)]
            moved = image[:, rows][:, :, columns]
            found[False, down, right] = moved.tobytes()
            if augmentation.flip:
                found[True, down, right] = moved[:, :, ::-1].tobytes()
    return found


@pytest.mark.parametrize("augmentation", [BOTH, Augmentation(True), Augmentation(crop=1), Augmentation(crop=3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_choice_occurs_and_nothing_else(augmentation, channels):
    images = numbered(4000, channels)
    got = augmentation(images, np.random.default_rng(0))
    assert got.shape == images.shape and got.dtype == np.uint8 and got.flags.c_contiguous
    known = choices(images[0], augmentation)
    assert len(set(known.values())) == len(known)
    counted = {each.tobytes() for each in got}
    assert counted == set(known.values())


def test_choices_are_as_likely_as_each_other():
    known = {code: choice for choice, code in choices(numbered(1)[0], BOTH).items()}
    drawn = np.array([known[each.tobytes()] for each in BOTH(numbered(10000), np.random.default_rng(0))])
    assert abs(drawn[:, 0].mean() - 0.5) < 0.02
    for way in (1, 2):
        assert np.abs(np.bincount(drawn[:, way] + 2) / len(drawn) - 1 / 5).max() < 0.02
    # None follows from another.
    assert np.abs(np.corrcoef(drawn.T.astype(float)) - np.eye(3)).max() < 0.05


def test_the_same_seed_gives_the_same_bits_and_another_others():
    images = np.random.default_rng(1).integers(0, 256, (32, 3, 32, 32)).astype(np.uint8)
    before = images.copy()
    first, again, other = (parse_augmentation("flip,crop:4")(images, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(images, before)


def test_what_an_image_becomes_does_not_depend_on_the_others():
    images = np.random.default_rng(1).integers(0, 256, (10, 1, 8, 8)).astype(np.uint8)
    whole, begun = (BOTH(part, np.random.default_rng(0)) for part in (images, images[:4]))
    assert np.array_equal(whole[:4], begun)
    one_by_one = np.random.default_rng(0)
    assert np.array_equal(whole, np.concatenate([BOTH(image[None], one_by_one) for image in images]))


def test_an_image_must_be_larger_than_its_edge():
    Augmentation(crop=7).check((3, 8, 9))
    Augmentation(flip=True).check((1, 1, 1))
    for image in ((3, 8, 9), (3, 9, 8)):
        with pytest.raises(UsageError, match=r"crop:8 of images of . x . pixels: expected fewer"):
            Augmentation(crop=8).check(image)


@pytest.mark.parametrize(
    ("text", "augmentation"),
    [
        ("flip", Augmentation(True, 0)),
        ("crop:1", Augmentation(False, 1)),
        ("flip,crop:4", Augmentation(True, 4)),
        ("crop:9999,flip", Augmentation(True, 9999)),
    ],
)
def test_texts(text, augmentation):
    assert parse_augmentation(text) == augmentation


@pytest.mark.parametrize(
    "text",
    ["", ",", "flip,", "crop", "crop:", "crop:0", "crop:-1", "crop:04", "crop:4.0", "crop:10000", "crop:\u0664",
     "flip:1", "flip:", "flip\n", "crop:4\n", "crop:4:4", ":4"],
)  # fmt: skip
def test_other_texts_get_an_example(text):
    with pytest.raises(UsageError, match=r"expected flip, crop:PIXELS, or both.* for example flip,crop:4"):
        parse_augmentation(text)


def test_twice_is_once_too_often():
    for text, name in (("flip,flip", "flip"), ("crop:4,flip,crop:2", "crop")):
        with pytest.raises(UsageError, match=f"augmentation '{text}': {name} is there twice, expected once"):
            parse_augmentation(text)


def test_near_names_are_suggested():
    with pytest.raises(UnknownName, match="unknown augmentation 'flop': did you mean flip"):
        parse_augmentation("flop,crop:4")
    with pytest.raises(UnknownName, match=r"unknown augmentation 'rotate': expected flip, crop:PIXELS"):
        parse_augmentation("rotate:10")


PARTS = st.sampled_from(["flip", "crop:4", "crop:12", "crop", "crop:", "flip:2", "crop:0", "", "flipp", " flip"])


@given(text=st.one_of(st.text(max_size=20), st.lists(PARTS, max_size=4).map(",".join)))
def test_any_text_is_an_augmentation_or_a_usage_error(text):
    try:
        found = parse_augmentation(text)
    except UsageError:
        return
    parts = (["flip"] if found.flip else []) + ([f"crop:{found.crop}"] if found.crop else [])
    assert parts and sorted(text.split(",")) == sorted(parts)

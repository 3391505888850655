import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PayloadError
from edgekit.line.labels import pack_labels, unpack_labels


@pytest.mark.parametrize(("classes", "size"), [(1, 1), (10, 1), (256, 1), (257, 2), (65536, 2)])
def test_labels_come_back(classes: int, size: int) -> None:
    labels = np.random.default_rng(0).integers(0, classes, 20)
    packed = pack_labels(labels, classes)
    assert len(packed) == 20 * size
    np.testing.assert_array_equal(unpack_labels(packed, 20, classes), labels)


def test_what_cannot_be_is_refused_with_its_place() -> None:
    for raw, images in ((b"", 0), (b"\0", 2), (b"\0\0\0", 2)):
        with pytest.raises(PayloadError, match=f"{len(raw)} B of labels for {images} images, expected 1 B each"):
            unpack_labels(raw, images, 10)
    with pytest.raises(PayloadError, match="label 10, expected below 10") as caught:
        unpack_labels(b"\0\x09\x0a", 3, 10)
    assert caught.value.offset == 2
    with pytest.raises(PayloadError, match="label 300, expected below 300") as caught:
        unpack_labels(b"\x2c\x01\x2c\x01", 2, 300)
    assert caught.value.offset == 0


@given(st.binary(max_size=9), st.integers(-1, 9), st.integers(1, 600))
def test_any_bytes_are_labels_or_a_payload_error(raw: bytes, images: int, classes: int) -> None:
    with contextlib.suppress(PayloadError):
        assert (unpack_labels(raw, images, classes) < classes).all()

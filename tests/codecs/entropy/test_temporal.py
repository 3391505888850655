import hashlib
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.base import Arrays
from edgekit.codecs.entropy import temporal
from edgekit.codecs.entropy.context import HISTORY, ContextStream
from edgekit.codecs.entropy.temporal import Memory, read_numbers, write_numbers
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import PayloadError

pytestmark = pytest.mark.usefixtures("coder")


def stream(coding: str = "temporal") -> ContextStream:
    end = SGQ(4, 4, coding=coding).stream()
    assert isinstance(end, ContextStream)
    return end


@pytest.mark.parametrize("payload", [b"\4\1\0\0\0", b"\2\xff\0", b"\3\0\0\0", b"\1", b""])
def test_a_number_in_another_size(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="numbers of 1 images"):
        read_numbers(payload, 1, 0)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=9), st.binary(max_size=5))
def test_numbers_come_back(numbers: list[int], before: bytes) -> None:
    payload = before + write_numbers(np.array(numbers, dtype=np.int64))
    images, end = read_numbers(payload + b"rest", len(numbers), len(before))
    assert images is not None and images.tolist() == numbers and end == len(payload)


def test_no_numbers() -> None:
    assert write_numbers(None) == b"\0" and read_numbers(b"\0\7", 64, 0) == (None, 1)


@given(st.binary(max_size=20), st.integers(1, 6), st.integers(0, 22))
def test_any_bytes(payload: bytes, n: int, start: int) -> None:
    try:
        images, end = read_numbers(payload, n, start)
        assert start < end <= len(payload) and (images is None or len(images) == n)
    except PayloadError as error:
        assert error.offset == start


def recalled(held: Memory, images: np.ndarray, version: int) -> list[int | None]:
    """The one code that each of `images` has, or None."""
    past = held.recall(images, (len(images), 1, 1, 1), version)
    return [int(code) if known else None for known, code in zip(past.known, past.codes.reshape(-1), strict=True)]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), max_size=14))
def test_every_version_that_a_line_can_name(batches: list[list[int]]) -> None:
    held = Memory(HISTORY)
    #: By version, the codes of every image.
    states: list[dict[int, int]] = [{}]
    for version, batch in enumerate(batches, 1):
        codes = (10 * version + np.arange(len(batch))) % 256
        held.keep(np.array(batch), codes.reshape(-1, 1, 1, 1).astype(np.int32), version)
        states.append({**states[-1], **dict(zip(batch, codes.tolist(), strict=True))})
    for version in range(max(len(batches) - HISTORY, 0), len(batches) + 1):
        assert recalled(held, np.arange(7), version) == [states[version].get(image) for image in range(7)]


def test_what_is_kept_is_its_own() -> None:
    held, codes = Memory(HISTORY), np.full((1, 2, 3, 3), 7, dtype=np.int32)
    held.keep(np.array([3]), codes, 1)
    codes[:] = 0
    past = held.recall(np.array([3]), codes.shape, 1)
    assert past.known.all() and (past.codes == 7).all()
    # An image that comes in another size is one that is not known.
    past = held.recall(np.array([3]), (1, 2, 4, 4), 1)
    assert not past.known.any() and past.codes.shape == (1, 2, 4, 4)


def test_a_full_memory_takes_no_new_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "CAPACITY", 2 * (18 + temporal.OVERHEAD))
    held = Memory(HISTORY)
    for version in (1, 2):
        held.keep(np.arange(3), np.full((3, 2, 3, 3), version, dtype=np.int32), version)
    past = held.recall(np.arange(3), (3, 2, 3, 3), 2)
    assert past.known.tolist() == [1, 1, 0] and past.codes[:2].min() == past.codes[:2].max() == 2


def test_two_ends_of_which_both_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches in flight name versions from before images that found no place, and before others that were replaced."""
    monkeypatch.setattr(temporal, "CAPACITY", 7 * (4 * 36 + temporal.OVERHEAD))
    sender, receiver = stream(), stream()
    waiting: deque[tuple[bytes, tuple[Arrays, np.ndarray]]] = deque()
    for epoch in range(9):
        waiting.append((sender.pack(*codes(epoch)), codes(epoch)))
        if len(waiting) > 3:
            payload, sent = waiting.popleft()
            arrived, images = receiver.unpack(payload, (10, 16, 6, 6))
            np.testing.assert_array_equal(arrived["codes"], sent[0]["codes"])
            receiver.update(arrived, images)
            sender.update(*sent)
    assert sender.check == receiver.check


def codes(seed: int, n: int = 10) -> tuple[Arrays, np.ndarray]:
    """The codes of `n` images, a tenth of them others with every `seed`, in an order of its own; and their numbers."""
    order = np.random.default_rng(seed).permutation(n)
    same = np.random.default_rng(0).integers(0, 16, (n, 4, 6, 6), dtype=np.int32)
    moved = np.random.default_rng(seed).random(same.shape) < 0.1
    return {"codes": np.where(moved, (same + seed) % 16, same)[order]}, order


def test_an_image_that_comes_again_costs_less() -> None:
    """Codes that nothing around them foretells, only the epoch before."""
    sizes: dict[str, int] = {}
    for coding in ("context", "temporal"):
        end = stream(coding)
        for epoch in range(8):
            sizes[coding] = len(end.pack(*codes(epoch, 100)))
            end.update(*codes(epoch, 100))
    assert sizes["temporal"] < 0.6 * sizes["context"]


def test_images_without_numbers() -> None:
    """Those of an evaluation: known images stay as they are, the tables learn all the same."""
    sender, receiver = stream(), stream()
    for epoch in range(4):
        given, order = codes(epoch)
        numbers = None if epoch % 2 else order
        arrived, images = receiver.unpack(sender.pack(given, numbers), (10, 16, 6, 6))
        assert (images is None) == (numbers is None)
        np.testing.assert_array_equal(arrived["codes"], given["codes"])
        sender.update(given, numbers)
        receiver.update(arrived, images)
    assert sender.check == receiver.check


def test_ends_with_other_memories_know_it() -> None:
    """The same indices of other images: equal tables, but not what they are coded by."""
    sender, receiver = stream(), stream()
    given, order = codes(0)
    sender.update(given, order)
    receiver.update(given, order[::-1])
    np.testing.assert_array_equal(sender._now.logs, receiver._now.logs)
    with pytest.raises(PayloadError, match="check"):
        receiver.unpack(sender.pack(*codes(1)), (10, 16, 6, 6))


def test_golden_bytes() -> None:
    end, digest = stream(), hashlib.sha256()
    for epoch in range(3):
        numbers = np.arange(10 * 4 * 36) + epoch * (np.arange(10 * 4 * 36) % 9 == 0)
        given = {"codes": (numbers % 16).reshape(10, 4, 6, 6).astype(np.int32)}, np.arange(10) * 300
        digest.update(end.pack(*given))
        end.update(*given)
    assert (end.check, digest.hexdigest()[:16]) == (0xC373, "9a413d3d80f01fa6")

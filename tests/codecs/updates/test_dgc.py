"""dgc: how many are kept, exactly; its end of a line against a direct reading of the paper; bytes; what is refused."""

from typing import Any

import numpy as np
import pytest

from edgekit.codecs.base import Arrays
from edgekit.codecs.updates import coding
from edgekit.codecs.updates.dgc import DGC
from edgekit.errors import Diverged, PayloadError, ShapeError, UsageError
from tests.codecs.updates.drawn import SHAPES, drawn, f32

RNG = np.random.default_rng(0)


def largest(array: np.ndarray, share: float) -> np.ndarray:
    """Where the `share` of largest magnitude of `array` is, by sorting all of it."""
    count = max(round(share * array.size), 1)
    chosen = np.zeros(array.size, dtype=bool)
    chosen[np.argsort(-np.abs(array.reshape(-1)), kind="stable")[:count]] = True
    return chosen.reshape(array.shape)


@pytest.mark.parametrize("keep", [0.001, 0.05, 1])
def test_exactly_k_of_each_array_are_kept_without_loss(keep: float) -> None:
    update = drawn(0)
    arrives = DGC(keep).unpack(DGC(keep).pack(update, RNG), SHAPES)
    for name, array in update.items():
        chosen = largest(array, keep)
        assert np.count_nonzero(arrives[name]) == max(round(keep * array.size), 1)
        np.testing.assert_array_equal(arrives[name], np.where(chosen, array, 0))


def test_every_float_arrives_to_the_last_bit() -> None:
    limits = np.finfo(np.float32)
    values = np.array([limits.max, -limits.max, limits.tiny, -1e-45, 1e-45, 1, -np.pi, 1 + limits.eps], np.float32)
    rest = np.random.default_rng(0).integers(1, 0x7F800000, 500, dtype=np.uint32).view(np.float32)
    update = {"a": np.concatenate((values, rest)), "zeros": np.zeros(4, np.float32)}
    arrives = DGC(1).unpack(DGC(1).pack(update, RNG), {"a": (508,), "zeros": (4,)})
    assert arrives["a"].tobytes() == update["a"].tobytes() and not arrives["zeros"].any()


@pytest.mark.parametrize("learns", [True, False])
def test_its_sender_is_the_papers_algorithm(learns: bool) -> None:
    """Momentum correction, clipping, factor masking and warm-up, array by array."""
    keep, momentum, clip, warmup = 0.02, 0.9, 0.5, 3
    sender = DGC(keep, momentum, clip, warmup).sender(learns)
    velocity = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    summed = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for time in range(7):
        update = drawn(time, 1e-2 if time % 2 else 1e-4)
        norm = np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in update.values()))
        assert (norm > clip) == time % 2
        _, arrives = sender.send(update, RNG)
        share = keep ** min((time + 1) / (warmup + 1), 1)
        assert share == [0.02**0.25, 0.02**0.5, 0.02**0.75, 0.02, 0.02, 0.02, 0.02][time]
        for name, array in update.items():
            given = array * np.float32(clip / norm) if norm > clip and learns else array
            velocity[name] = np.float32(momentum if learns else 0) * velocity[name] + given
            summed[name] = summed[name] + velocity[name]
            chosen = largest(summed[name], share)
            np.testing.assert_allclose(arrives[name], np.where(chosen, summed[name], 0), rtol=1e-5, atol=1e-12)
            summed[name] = np.where(chosen, f32(0), summed[name])
            velocity[name] = np.where(chosen, f32(0), velocity[name])


def test_warm_up_is_the_papers() -> None:
    """Of 1 in 1000 it keeps 25 %, 6.25 %, 1.6 % and 0.4 % first."""
    values = {"a": np.random.default_rng(0).laplace(size=10**5).astype(np.float32)}
    sender = DGC().sender()
    shares = [np.count_nonzero(sender.send(values, RNG)[1]["a"]) / 1e5 for _ in range(6)]
    np.testing.assert_allclose(shares, [0.2512, 0.0631, 0.01585, 0.00398, 0.001, 0.001], rtol=1e-3)


def test_after_an_error_it_is_as_it_was() -> None:
    sender, same = (DGC(0.1, 0.9).sender() for _ in range(2))
    for each in (sender, same):
        each.send(drawn(0), RNG)
    wrong: list[tuple[Arrays, type[Exception]]] = [
        ({"scale": f32(1)}, ShapeError),
        ({**drawn(1), "new": np.zeros(1, np.float32)}, ShapeError),
        ({**drawn(1), "1.bias": np.zeros(4, np.float32)}, ShapeError),
        ({**drawn(1), "1.bias": np.full(16, np.nan, np.float32)}, Diverged),
        ({**drawn(1), "1.bias": np.zeros(16)}, ShapeError),
    ]
    for update, error in wrong:
        with pytest.raises(error, match=r"1\.bias|new|3\.weight|0\.weight"):
            sender.send(update, RNG)
    assert sender.send(drawn(2), RNG)[0] == same.send(drawn(2), RNG)[0]


def test_bits_by_formula_and_measured() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (100, 1000), "b": (10,)}
    assert DGC().formula_bits(shapes) == 48 * 101
    update = {name: np.random.default_rng(0).laplace(size=shape).astype(np.float32) for name, shape in shapes.items()}
    payload = DGC(0.01).pack(update, RNG)
    assert DGC().formula_bits_of(DGC().unpack(payload, shapes)) == 48 * 1001, "of what was kept, as in a warm-up"
    # 8 bits for a place, a sign, 23 of mantissa, and an exponent of which there are few.
    assert 8 * len(payload) < 1001 * (8.1 + 1 + 23 + 2.5)


def fields(count: int, lowest: int, low: int, high: int, levels: list[int]) -> bytes:
    return bytes([count, 0, 0, 0, lowest, low, 0, high << 1]) + coding.encode(np.array(levels), {"a": (len(levels),)})


def test_payload_field_by_field() -> None:
    assert DGC(0.5).pack({"a": f32([0, -1])}, RNG) == fields(1, 127, 0, 0, [0, -1])
    arrives = DGC().unpack(fields(1, 127, 1, 64, [2, 0]), {"a": (2,)})["a"]
    np.testing.assert_array_equal(arrives, f32([2 * (1.5 + 2**-23), 0]))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (fields(1, 127, 0, 0, [1, 1]), "2 levels that are not 0, expected 1"),
        (fields(1, 254, 0, 0, [2, 0]), "not finite"),
        (fields(3, 1, 0, 0, [1, 1]), "3 values of 2"),
        (b"\1\0\0\0\1\0", "1 values of 2"),
        (b"\1\0\0\0", "expected a head"),
    ],
)
def test_what_is_none_is_refused(payload: bytes, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        DGC().unpack(payload, {"a": (2,)})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"momentum": 1}, "momentum of 0 or more"), ({"clip": -1}, "norm to clip"), ({"warmup": 0.5}, "warm-up"),
        ({"clip": float("inf")}, "norm to clip"), ({"keep": 0}, "share to keep"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        DGC(**config)

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgekit.codecs.gradients.dct import DCT
from edgekit.errors import UsageError
from edgekit.server.bound import EVERY, FIRST, LEAST, Fineness, error_of
from edgekit.server.calibrate import Calibrator, calibrator

SHAPE = (16, 12, 8, 8)


def feature(seed: int) -> torch.Tensor:
    """Smooth and of one sign, as after a ReLU."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.abs(np.cumsum(rng.normal(size=SHAPE), axis=2)).astype(np.float32))


def gradient(seed: int) -> np.ndarray:
    rng = np.random.default_rng((1, seed))
    return (rng.normal(size=SHAPE) * rng.lognormal(0, 1, (SHAPE[0], SHAPE[1], 1, 1))).astype(np.float32)


def sendings(
    bound: float, steps: int, size: Callable[[int], float] = lambda step: 1.0
) -> list[tuple[int, float | None]]:
    """Bytes and error of every step."""
    chosen, fineness = calibrator(f"dct:bound={bound}", 0), Fineness()
    out = []
    for step in range(steps):
        g = gradient(step) * np.float32(size(step))
        payload, deviation, error = fineness.send(chosen, g, None, feature(step), 1, step)
        arrived = chosen.codec.unpack(payload, SHAPE, None)
        assert deviation == pytest.approx(float(np.linalg.norm(g - arrived) / np.linalg.norm(g)), rel=1e-3)
        if error is not None:
            assert error == pytest.approx(error_of(g, arrived, feature(step).numpy()))
        out.append((len(payload), error))
    return out


def test_the_error_is_that_of_a_layer_of_1x1() -> None:
    """Against the definition, weight by weight."""
    g, z = gradient(0), feature(0).numpy()
    arrived = DCT(2).unpack(DCT(2).pack(g, None, np.random.default_rng(0)), SHAPE, None)
    z /= np.sqrt(np.square(z).mean())

    def of_layer(at_output: np.ndarray) -> np.ndarray:
        weights = np.einsum("nohw,nihw->oi", at_output.astype(float), z.astype(float))
        return np.concatenate([weights.reshape(-1), at_output.sum(axis=(0, 2, 3), dtype=float)])

    expected = np.linalg.norm(of_layer(g) - of_layer(arrived)) / np.linalg.norm(of_layer(g))
    assert error_of(g, arrived, feature(0).numpy()) == pytest.approx(float(expected), rel=1e-4)
    for size in (np.float32(1e-18), np.float32(1e18)):
        assert error_of(g * size, arrived * size, z * size) == pytest.approx(float(expected), rel=1e-4)
    assert error_of(g, g, z) == 0 == error_of(np.zeros_like(g), np.zeros_like(g), z)


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.8])
def test_every_measured_error_is_within_the_bound(bound: float) -> None:
    found = sendings(bound, 24)
    measured = [error for _, error in found if error is not None]
    assert len(measured) == FIRST + len([step for step in range(FIRST, 24) if step % EVERY == 0])
    assert max(measured) <= bound
    # And not far within it, which would cost bytes.
    assert np.mean(measured[-4:]) > 0.6 * bound


def test_a_wider_bound_costs_fewer_bytes_whatever_the_gradients_length() -> None:
    sizes = [sendings(bound, 16)[-1][0] for bound in (0.1, 0.3, 0.8)]
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]
    assert sendings(0.3, 16, lambda step: 1e-6 if step % 2 else 1e6)[-1][0] == pytest.approx(sizes[1], rel=0.05)


def test_where_nothing_meets_the_bound_the_finest_is_sent_and_the_error_told() -> None:
    fineness = Fineness()
    errors = [fineness.send(calibrator("dct:bound=0.01", 0), gradient(s), None, feature(s), 1, s)[2] for s in range(8)]
    assert fineness.zone == LEAST and errors[-1] is not None and errors[-1] > 0.01


def test_a_zero_gradient_is_not_measured_and_moves_no_zone() -> None:
    zero, chosen, fineness = np.zeros(SHAPE, np.float32), calibrator("dct:bound=0.3", 0), Fineness()
    fineness.send(chosen, gradient(0), None, feature(0), 1, 0)
    zone = fineness.zone
    assert fineness.send(chosen, zero, None, feature(0), 1, 1) == (bytes(4), 0.0, None)
    assert fineness.zone == zone


def test_gradients_are_counted_and_not_steps() -> None:
    """Where the server sends every fifth gradient, as many are measured of those that it sends."""
    chosen, fineness = calibrator("dct:bound=0.5", 0), Fineness()
    sent = [fineness.send(chosen, gradient(step), None, feature(step), 1, step) for step in range(0, 100, 5)]
    assert [error is not None for *_, error in sent] == [True] * FIRST + [i % EVERY == 0 for i in range(FIRST, 20)]


def test_a_masked_gradient_is_held_to_the_bound_where_it_is_active() -> None:
    chosen, fineness = calibrator("dct-masked:bound=0.5", 0), Fineness()
    for step in range(6):
        active = feature(step).numpy() > 1
        assert 0.2 < active.mean() < 0.8
        payload, _, error = fineness.send(chosen, gradient(step), active, feature(step), 1, step)
        arrived = chosen.codec.unpack(payload, SHAPE, active)
        masked = np.where(active, gradient(step), np.float32(0))
        assert not arrived[~active].any()
        assert error is not None and error <= 0.5
        assert error == pytest.approx(error_of(masked, arrived, feature(step).numpy()))
    assert fineness.zone > 0.5


def test_a_bound_takes_the_place_of_a_zone() -> None:
    chosen = calibrator("dct:bound=0.3,slope=2", 0)
    assert isinstance(chosen, Calibrator) and chosen.bound == 0.3 and chosen.codec.config["slope"] == 2
    assert calibrator("dct", 0).bound is None
    with pytest.raises(UsageError, match="zone follows from the bound"):
        calibrator("dct:bound=0.3,zone=1", 0)
    with pytest.raises(UsageError, match=r"expected a bound of 0.01 to 2"):
        calibrator("dct:bound=3", 0)
    with pytest.raises(UsageError, match="bound"):
        calibrator("sparse:bound=0.3", 0)

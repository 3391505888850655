"""dct gradients: the transform, what a unit is, what arrives, and what is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.gradients.dct import _BALANCE, DCT, _bands, _notches, _spread, _transform
from edgekit.codecs.gradients.sparse import Sparse
from edgekit.errors import PayloadError, UsageError

pytestmark = pytest.mark.usefixtures("coder")
SHAPE = (4, 16, 8, 8)


def heavy_tailed(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Like a gradient: most of it small, images of different magnitude."""
    rng = np.random.default_rng(seed)
    images = np.exp(rng.normal(size=(shape[0], 1, 1, 1)))
    return (rng.laplace(size=shape) * images * (rng.random(shape) < 0.3)).astype(np.float32)


def sent(codec: DCT | Sparse, gradient: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    payload = codec.pack(gradient, mask, np.random.default_rng(0))
    return codec.unpack(payload, gradient.shape, mask), len(payload)


@pytest.mark.parametrize("h, w", [(1, 1), (2, 3), (8, 8), (5, 1)])
def test_the_transform_is_orthonormal_and_its_first_coefficient_the_mean(h: int, w: int) -> None:
    planes = np.random.default_rng(0).normal(size=(2, 3, h, w)).astype(np.float32)
    coefficients = _transform(planes.copy(), False)
    assert coefficients.shape == planes.shape
    np.testing.assert_allclose(_transform(coefficients.copy(), True), planes, atol=1e-5)
    np.testing.assert_allclose((coefficients**2).sum(axis=(2, 3)), (planes**2).sum(axis=(2, 3)), rtol=1e-4)
    np.testing.assert_allclose(coefficients[:, :, 0, 0], planes.mean(axis=(2, 3)) * np.sqrt(h * w), atol=1e-5)


def test_a_wave_of_one_frequency_is_one_coefficient() -> None:
    rows = np.cos(np.pi / 8 * (np.arange(8) + 0.5) * 3)[:, None] * np.ones(8)
    coefficients = _transform(rows[None, None].astype(np.float32), False)[0, 0]
    assert abs(coefficients[3, 0]) > 5 and np.abs(np.delete(coefficients.reshape(-1), 24)).max() < 1e-5


def test_bands_go_from_low_to_high() -> None:
    order, sizes = _bands(2, 3)
    assert order.tolist() == [0, 1, 3, 2, 4, 5] and sizes.tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("zone", [0.3, 1, 2])
def test_what_arrives_is_as_long_as_the_gradient_projected_on_it(zone: float) -> None:
    gradient = heavy_tailed(0)
    loudness = np.sqrt(np.square(gradient, dtype=np.float64).mean(axis=(0, 2, 3)))
    balance = _spread(_notches(loudness**_BALANCE))[:, None, None]
    weights = DCT()._weights(8, 8) / balance
    exact, arrives = (_transform(part, False) * weights for part in (gradient, sent(DCT(zone), gradient)[0]))
    # Longer by what is not sent: the whole's energy is the inner product's.
    assert (exact * arrives).sum() == pytest.approx((exact**2).sum(), rel=1e-3)


def test_a_short_zone_is_nearly_exact_and_a_long_one_takes_few_bytes() -> None:
    gradient = heavy_tailed(1)
    errors, sizes = [], []
    for zone in (0.05, 0.5, 2, 5):
        arrives, size = sent(DCT(zone), gradient)
        errors.append(float(np.linalg.norm(arrives - gradient) / np.linalg.norm(gradient)))
        sizes.append(size)
    assert errors[0] < 0.1 and errors == sorted(errors) and sizes == sorted(sizes, reverse=True)


def test_an_image_has_a_unit_by_the_root_of_its_gradients_length() -> None:
    one = np.random.default_rng(0).normal(size=(1, 16, 8, 8)).astype(np.float32)
    gradient = np.concatenate((one, one / np.float32(16)))
    payload = DCT(0.5).pack(gradient, None, np.random.default_rng(0))
    # A sixteenth as long, a quarter of the unit: two octaves of 8 notches.
    assert payload[9] - payload[8] == 16
    arrives, _ = sent(DCT(0.5), gradient)
    coefficients = np.abs(_transform(arrives, False))
    shares = (coefficients > 1e-3 * coefficients.max(axis=(1, 2, 3), keepdims=True)).mean(axis=(1, 2, 3))
    assert shares[0] > 4 * shares[1] > 0
    # Gradients that the network has no more use for are not sent.
    arrives, _ = sent(DCT(), np.concatenate((one, one / np.float32(1000))))
    assert arrives[0].any() and not arrives[1].any()


def test_a_loud_channel_leaves_the_others_their_share() -> None:
    gradient = np.random.default_rng(0).normal(size=(4, 16, 8, 8)).astype(np.float32)
    gradient[:, 3] *= 64
    arrives, _ = sent(DCT(), gradient)
    share = np.sqrt((arrives**2).sum(axis=(0, 2, 3)) / (gradient**2).sum(axis=(0, 2, 3)))
    # Sent as if it were 3 times as loud: finer than the others, which are not lost beside it.
    assert share.min() > 0.1 and share[3] > share.mean()


def test_sums_over_positions_arrive_better_than_by_sparse_at_more_bytes() -> None:
    """The gradient of a weight is a sum over positions of the gradient times an input that is smooth and positive."""
    rng = np.random.default_rng(2)
    gradient = rng.laplace(size=(32, 32, 8, 8)).astype(np.float32)
    inputs = 1 + 0.3 * np.cumsum(rng.normal(size=(32, 1, 8, 8)), axis=3) / np.sqrt(8)

    def cosine(arrives: np.ndarray) -> float:
        exact, found = ((part * inputs).sum(axis=(2, 3)).reshape(-1) for part in (gradient, arrives))
        return float(exact @ found / np.linalg.norm(exact) / np.linalg.norm(found))

    (ours, few), (theirs, many) = sent(DCT(2), gradient), sent(Sparse(step=16), gradient)
    assert few < many and cosine(ours) > cosine(theirs)


def test_where_the_mask_is_false_nothing_counts_and_nothing_arrives() -> None:
    gradient = heavy_tailed(3)
    mask = np.random.default_rng(3).random(SHAPE) < 0.6
    spoilt = np.where(mask, gradient, np.float32(7))
    payloads = [DCT().pack(each, mask, np.random.default_rng(0)) for each in (gradient, spoilt)]
    assert payloads[0] == payloads[1]
    arrives = DCT().unpack(payloads[0], SHAPE, mask)
    assert not arrives[~mask].any() and arrives[mask].any()


def test_a_gradient_of_zeros_is_four_bytes() -> None:
    assert DCT().pack(np.zeros(SHAPE, np.float32), None, np.random.default_rng(0)) == bytes(4)


@pytest.mark.parametrize("unit, excess", [(np.nan, 0), (np.inf, 0), (-1, 0), (0, 0), (1, np.nan), (1, -0.1), (1, 1.5)])
def test_units_that_are_none_are_refused(unit: float, excess: float) -> None:
    payload = DCT().pack(heavy_tailed(0), None, np.random.default_rng(0))
    with pytest.raises(PayloadError, match="expected") as caught:
        DCT().unpack(struct.pack("<ff", unit, excess) + payload[8:], SHAPE, None)
    assert caught.value.offset in (0, 4)


@given(data=st.data())
@settings(deadline=None)
def test_a_payload_with_bytes_changed_is_a_gradient_or_a_payload_error(data: st.DataObject) -> None:
    gradient = heavy_tailed(5, (2, 8, 4, 4))
    payload = bytearray(DCT(1).pack(gradient, None, np.random.default_rng(0)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)) | st.just(len(payload)))]
    try:
        arrives = DCT(1).unpack(bytes(payload), gradient.shape, None)
    except PayloadError as error:
        assert 0 <= error.offset <= len(payload)
    else:
        assert np.isfinite(arrives).all() and arrives.shape == gradient.shape


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_gradient_is_refused_before_it_is_sent(value: float) -> None:
    gradient = np.ones((2, 2, 1, 1), np.float32)
    gradient[1, 1] = value
    with pytest.raises(UsageError, match="diverged"):
        DCT().pack(gradient, None, np.random.default_rng(0))


@pytest.mark.parametrize("config", [{"zone": 0}, {"zone": 101}, {"zone": "x"}, {"slope": -1}, {"slope": 101}])
def test_configurations_that_make_no_sense_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="dct takes"):
        DCT(**config)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (32, 1, 1, 1), (3, 2, 1, 1), (64, 16, 1, 1), (4, 3, 2, 2)])
@pytest.mark.parametrize("zone", [0.01, 1.5, 4, 100])
def test_of_every_batch_something_arrives_and_nothing_of_images_that_are_zero(
    shape: tuple[int, ...], zone: float
) -> None:
    same = np.sign(np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    drawn = heavy_tailed(1, shape)
    drawn[0] = 0
    for gradient in (same, drawn, same * np.float32(1e-30), same * np.float32(1e30)):
        arrives, _ = sent(DCT(zone), gradient)
        here, there = (np.abs(part).max(axis=(1, 2, 3)) > 0 for part in (gradient, arrives))
        assert there.any() == here.any() and not there[~here].any()


def test_one_that_stands_out_is_not_made_up_into_all_the_others() -> None:
    gradient = np.ones((64, 16, 1, 1), np.float32)
    gradient[0, 0] = 4
    arrives, _ = sent(DCT(), gradient)
    assert np.abs(arrives).max() <= 4 * 4 + 1e-3 and np.linalg.norm(arrives) <= 4 * np.linalg.norm(gradient)

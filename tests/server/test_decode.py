import numpy as np
import pytest
import torch

from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.registry import FEATURES, feature_codec
from edgekit.server.decode import TWINS, decode, fill, filled, to_network_order

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "codec",
    [feature_codec(codec_id, {}) for codec_id in FEATURES] + [SGQ(groups=1, bits=2), SGQ(groups=4, bits=8)],
    ids=repr,
)
def test_a_decoded_feature_equals_the_codecs_own(codec: FeatureCodec) -> None:
    feature = np.maximum(np.random.default_rng(0).normal(size=(20, 16, 4, 4)), 0).astype(np.float32)
    tables = codec.calibrate(feature, seed=0)
    codes = codec.unpack(codec.pack(codec.quantize(feature, tables)), feature.shape)
    decoded = decode(codec, codes, tables, CPU)
    assert decoded.dtype == torch.float32
    np.testing.assert_array_equal(decoded.numpy(), codec.dequantize(codes, tables))


def test_every_twin_belongs_to_a_codec() -> None:
    assert set(TWINS) <= set(FEATURES)


@pytest.mark.parametrize("order", [np.arange(4), np.array([2, 0, 3, 1])])
def test_network_order_puts_coded_channels_back_and_gradients_forth(order: np.ndarray) -> None:
    network = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3, 1)
    coded = network[:, order].requires_grad_()
    restored = to_network_order(coded, order)
    assert torch.equal(restored, network)
    (restored * network**2).sum().backward()
    assert coded.grad is not None and torch.equal(coded.grad, (network**2)[:, order])
    restored.detach().zero_()
    assert coded.any(), "what comes back is a copy"


@pytest.mark.parametrize("missing", [0.2, 0.75])
def test_a_filled_feature_varies_as_much_as_before(missing: float) -> None:
    drawn = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    feature = drawn * torch.tensor([0.1, 1, 7])[:, None, None] + 5
    kept = feature.clone()
    noisy = fill(feature, missing, (0, 1, 2))
    assert torch.equal(feature, kept)
    variance, before = (each.var((0, 2, 3)) for each in (noisy, feature))
    torch.testing.assert_close(variance, before / (1 - missing), rtol=0.05, atol=0)
    # Of mean 0, and of its own: 16,384 values a channel.
    assert ((noisy - feature).mean((0, 2, 3)).abs() < 4 * (variance / 16384) ** 0.5).all()
    along = ((noisy - feature) * (feature - 5)).mean((0, 2, 3)) / (variance * before) ** 0.5
    assert (along.abs() < 4 / 128).all()


def test_noise_follows_from_its_seed() -> None:
    feature = torch.randn(2, 3, 4, 4)
    assert torch.equal(fill(feature, 0.0, (0, 1, 2)), feature)
    first, again, *others = (
        fill(feature, 0.5, seed) for seed in ((0, 1, 2), (0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3))
    )
    assert torch.equal(first, again) and not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(("steps", "last"), [(0, -1), (1, 0), (10, 8), (1000, 899)])
def test_the_last_tenth_of_the_steps_is_not_filled(steps: int, last: int) -> None:
    assert [step for step in range(steps + 2) if filled(step, steps)] == list(range(last + 1))

import numpy as np
import pytest
import torch

from edgekit.codecs.base import FeatureCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.registry import FEATURES, feature_codec
from edgekit.server.decode import TWINS, decode, to_network_order

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

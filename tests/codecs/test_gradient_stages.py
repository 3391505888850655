"""vq, residual and sampled gradients: fields of the payload, and what each part is for."""

import struct

import numpy as np
import pytest

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.gradients.residual import Residual
from edgekit.codecs.gradients.sampled import Sampled
from edgekit.codecs.gradients.sparse import Sparse
from edgekit.codecs.gradients.vq import VQ
from edgekit.errors import PayloadError, UsageError

GRADIENT = np.random.default_rng(0).normal(size=(6, 16, 4, 4)).astype(np.float32)
RNG = np.random.default_rng(1)


def error(arrives: np.ndarray) -> float:
    return float(np.linalg.norm(arrives - GRADIENT) / np.linalg.norm(GRADIENT))


def test_vq_payload_field_by_field() -> None:
    payload = VQ(groups=4, bits=6).pack(GRADIENT, None, RNG)
    stripes = 6 * 4 * 4 * 4
    assert len(payload) == 8 + stripes + stripes * 6 // 8
    lengths = np.frombuffer(payload, np.uint8, stripes, 8)
    assert lengths.max() == 255 and struct.unpack("<f", payload[:4])[0] > 0
    short = GRADIENT.copy()
    short[2, 4:8, 1, 3] = 0
    at = (2 * 4 + 1) * 16 + 1 * 4 + 3
    assert VQ(groups=4, bits=6).pack(short, None, RNG)[8 + at] == 0, "a stripe of zeros has no length"


def test_vq_gets_nearer_with_bits_and_groups_and_nearest_without_exactness() -> None:
    def mean_error(codec: VQ) -> float:
        rng = np.random.default_rng(2)
        return float(
            np.mean([error(codec.unpack(codec.pack(GRADIENT, None, rng), GRADIENT.shape, None)) for _ in range(5)])
        )

    coarse, fine, finer = mean_error(VQ(4, 4)), mean_error(VQ(4, 8)), mean_error(VQ(8, 8))
    assert finer < fine < coarse
    assert mean_error(VQ(4, 8, exact=False)) < fine


def test_vq_draws_other_directions_for_every_message_unless_biased() -> None:
    seeds = {VQ(4).pack(GRADIENT, None, RNG)[4:8] for _ in range(3)}
    assert len(seeds) == 3
    assert VQ(4, exact=False).pack(GRADIENT, None, RNG)[4:8] == bytes(4)


@pytest.mark.parametrize("length", [float("nan"), -1.0, float("inf")])
def test_a_length_that_is_none_is_refused(length: float) -> None:
    payload = VQ(4).pack(GRADIENT, None, RNG)
    with pytest.raises(PayloadError, match="longest stripe"):
        VQ(4).unpack(struct.pack("<f", length) + payload[4:], GRADIENT.shape, None)


def test_the_second_stage_is_for_what_the_first_leaves() -> None:
    codec = Residual(["vq", {"groups": 4, "exact": False}], ["stochastic", {"bits": 8}])
    payload = codec.pack(GRADIENT, None, RNG)
    size = struct.unpack("<I", payload[:4])[0]
    first = codec.first.unpack(payload[4 : 4 + size], GRADIENT.shape, None)
    second = codec.second.unpack(payload[4 + size :], GRADIENT.shape, None)
    np.testing.assert_allclose(codec.unpack(payload, GRADIENT.shape, None), first + second, atol=1e-6)
    assert error(first + second) < 0.1 * error(first)
    assert codec.unbiased and not Residual(["raw", {}], ["vq", {"groups": 4, "exact": False}]).unbiased
    for wrong in (payload[:3], payload[: size + 3], struct.pack("<I", 1 << 31) + payload[4:]):
        with pytest.raises(PayloadError, match="first stage"):
            codec.unpack(wrong, GRADIENT.shape, None)


def test_sampled_images_arrive_longer_and_the_others_not_at_all() -> None:
    codec = Sampled(0.4, ["raw", {}])
    payload = codec.pack(GRADIENT, None, RNG)
    sent = np.unpackbits(np.frombuffer(payload[:1], np.uint8))[:6].astype(bool)
    assert sent.sum() == 3 and len(payload) == 1 + 3 * 4 * GRADIENT[0].size
    arrives = codec.unpack(payload, GRADIENT.shape, None)
    np.testing.assert_allclose(arrives[sent], GRADIENT[sent] * 2, rtol=1e-6)
    assert not arrives[~sent].any()
    with pytest.raises(PayloadError, match="2 of 6 images, expected 3"):
        codec.unpack(bytes([0b11000000]) + payload[1:], GRADIENT.shape, None)
    with pytest.raises(PayloadError, match="expected 3"):
        codec.unpack(bytes([payload[0] | 1]) + payload[1:], GRADIENT.shape, None)


@pytest.mark.parametrize("share", [0, 1.5, "half"])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(UsageError, match="share above 0"):
        Sampled(share)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["sparse", ["sparse"], ["sparse", 5]])
def test_a_stage_is_a_codec_and_its_configuration(stage: object) -> None:
    with pytest.raises(UsageError, match=r"\[codec, configuration\]"):
        Sampled(0.5, stage)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\[codec, configuration\]"):
        Residual(["raw", {}], stage)  # type: ignore[arg-type]


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(UsageError, match="equal ones"):
        VQ(5).pack(GRADIENT, None, RNG)
    with pytest.raises(UsageError, match="at least 1 group"):
        VQ(0)


@pytest.mark.parametrize("codec", [VQ(4), Residual(), Sampled(1), Sparse()], ids=repr)
def test_a_diverged_gradient_is_refused(codec: VQ | Residual | Sampled | Sparse) -> None:
    broken = GRADIENT.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="diverged"):
        codec.pack(broken, None, RNG)


@pytest.mark.parametrize("codec", [VQ(groups=7), Sampled(codec=["vq", {"groups": 7}]), Residual(["vq", {"groups": 7}])])
def test_groups_that_do_not_divide_the_channels_are_known_before_a_gradient(codec: GradientCodec) -> None:
    codec.check(14)
    with pytest.raises(UsageError, match="7 groups cannot code 16 channels"):
        codec.check(16)


@pytest.mark.parametrize("inner", ["sampled", "residual"])
def test_stages_do_not_nest(inner: str) -> None:
    with pytest.raises(UsageError, match="of one stage, got '" + inner):
        Sampled(codec=[inner, {}])
    with pytest.raises(UsageError, match="of one stage, got '" + inner):
        Residual(second=[inner, {}])


def test_one_direction_and_its_opposite_are_not_unbiased() -> None:
    assert VQ(groups=4, bits=2).unbiased and not VQ(groups=4, bits=1).unbiased

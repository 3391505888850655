import math

import numpy as np
import pytest
import torch

from edgekit.bundle import Bundle
from edgekit.server.look import ALIKE, FEWEST, golden_size, look_at, repeated
from tests.conftest import SmallNet
from tests.server.sights import front, noise, sights


def test_the_numbers_of_a_batch() -> None:
    feature = torch.tensor([1.0, -1.0, 3.0, -3.0]).reshape(2, 2, 1, 1)
    seen = look_at(feature)
    assert seen.images == 2 and seen.finite and seen.coherence is None
    assert seen.size == pytest.approx(math.sqrt(5)) and seen.variety == pytest.approx(1 / 5)
    np.testing.assert_array_equal(seen.outline, [[1, -1], [3, -3]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_features_that_are_no_numbers_or_overflow_are_not_finite(value: float) -> None:
    feature = sights(16, 0)
    feature[3, 1, 2, 2] = value
    assert not look_at(feature).finite


def test_images_that_are_alike_have_no_variety() -> None:
    assert look_at(sights(1, 0).expand(16, -1, -1, -1)).variety < ALIKE
    assert look_at(torch.zeros(16, 2, 3, 3)).variety == 0
    low_contrast = 1 + 0.02 * sights(16, 0)
    assert look_at(low_contrast).variety > ALIKE


def test_coherence_parts_noise_from_images_at_any_scale() -> None:
    for seed in range(5):
        images, white = look_at(sights(16, seed)).coherence, look_at(noise(16, seed)).coherence
        assert images is not None and white is not None
        assert white < 8 < 20 < images
        assert look_at(1e-3 * sights(16, seed)).coherence == pytest.approx(images, rel=1e-3)
    assert look_at(sights(FEWEST - 1, 0)).coherence is None


def test_independent_values_have_a_coherence_of_about_1() -> None:
    values = torch.randn((64, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    assert look_at(values).coherence == pytest.approx(1, abs=0.15)


def test_the_same_images_are_repeated_also_for_a_front_half_that_learned() -> None:
    images = torch.rand((16, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    module = front()
    before = look_at(module(images).detach()).outline
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    now = look_at(module(images).detach()).outline
    assert not np.allclose(before, now, rtol=0.05) and repeated(before, now) >= 0.9
    assert repeated(before, now[::-1]) == 0
    assert repeated(before, look_at(sights(16, 3)).outline) < 0.4


def test_the_golden_size_of_a_bundle_is_that_of_its_exported_front_half(small_bundle: Bundle) -> None:
    torch.manual_seed(0)
    image = torch.from_numpy(small_bundle.arrays("golden.safetensors")["image"])
    feature = SmallNet().features.train()(image).detach()
    assert golden_size(small_bundle) == pytest.approx(float(feature.square().mean().sqrt()), rel=0.15)


def test_a_bundle_without_golden_images_has_no_golden_size(small_bundle: Bundle) -> None:
    files = {name: entry for name, entry in small_bundle.manifest["files"].items() if name != "golden.safetensors"}
    manifest = {**small_bundle.manifest, "files": files}
    assert golden_size(Bundle(small_bundle.path, manifest, "")) is None

"""Noise filling: in training, the server adds Gaussian noise in the place of the variance that quantising lost.

Audio codecs put noise so where they code nothing. Here it keeps the back half from learning the training images by
heart. What the devices send, and evaluation, stay as they are.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from edgekit.codecs.base import CodebookCodec, FeatureCodec
from edgekit.errors import PayloadError, UsageError
from edgekit.line.frame import HEAD_SIZE
from edgekit.line.messages import MOST_MISSING, Feature

#: The share of a run that has noise. In its last steps, batch norms behind the cut come to the variance
#: that they get in evaluation, which has no noise.
FILLED = 0.9
#: The option's value for the share that the device tells.
LOST = "lost"


class NoiseFilling(NamedTuple):
    """Noise of `share` of the variance, 0 to MOST_MISSING; None: as much as the device says that quantising lost."""

    share: float | None = None
    seed: int = 0

    @property
    def asks(self) -> bool:
        """Whether devices have to tell what quantising lost."""
        return self.share is None

    def apply(self, feature: torch.Tensor, message: Feature, device: int, progress: float) -> torch.Tensor:
        """`feature` (n,C,h,w) f32, decoded from `message`, as it is trained on.

        `device` is a number of the device for the draw, `progress` how far the run is, 0 to 1.
        """
        missing = self.missing(message)
        if progress >= FILLED:
            return feature
        return fill(feature, missing, (self.seed, device, message.step))

    def missing(self, message: Feature) -> float:
        """The share of the variance that is missing in `message`. PayloadError where it does not tell and has to."""
        missing = message.missing if self.share is None else self.share
        if missing is None:
            raise PayloadError(f"feature message: 'missing' is absent, expected 0 to {MOST_MISSING}", HEAD_SIZE)
        return missing


def noise_filling(text: str | None, codec: FeatureCodec, seed: int) -> NoiseFilling | None:
    """What --noise-filling says: None, "lost", or a share such as "0.4". UsageError when `codec` cannot do that."""
    if text is None:
        return None
    if text == LOST:
        if not isinstance(codec, CodebookCodec):
            raise UsageError(
                f"--noise-filling: codec '{codec.codec_id}' has no codebooks and cannot tell what quantising lost: "
                "name the share of the variance, as in --noise-filling 0.3, or take --codec sgq"
            )
        return NoiseFilling(None, seed)
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= MOST_MISSING:
        raise UsageError(f"--noise-filling {text}: expected '{LOST}', or a share above 0 and up to {MOST_MISSING}")
    return NoiseFilling(share, seed)


def fill(feature: torch.Tensor, missing: float, seed: Sequence[int]) -> torch.Tensor:
    """`feature` (n,C,h,w) f32 and Gaussian noise, drawn from `seed`: `missing` of the variance of the two together.

    The share is taken to be the same in all channels: each one's noise is as long as its own deviation makes it.
    """
    noise = torch.Generator(feature.device).manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    size = math.sqrt(missing / (1 - missing)) * feature.std((0, 2, 3), correction=0, keepdim=True)
    return feature + size * torch.randn(feature.shape, generator=noise, device=feature.device)

"""Calibrator: gradient at the cut -> the bytes to send, and how far what they say is from it."""

from typing import Any

import numpy as np

from edgekit.bundle import Bundle
from edgekit.codecs.base import GradientCodec
from edgekit.codecs.registry import gradient_codec, parse_settings
from edgekit.errors import UnknownName

#: By name, the gradient codec, its configuration, and whether it is told where the decoded feature is active.
POLICIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "none": ("raw", {}, False),
    "masked": ("raw", {}, True),
    "stochastic": ("stochastic", {"bits": 4}, False),
    "stochastic-masked": ("stochastic", {"bits": 4}, True),
    "ternary": ("ternary", {}, False),
    "ternary-masked": ("ternary", {}, True),
    "sparse": ("sparse", {}, False),
    "sparse-masked": ("sparse", {}, True),
    "dct": ("dct", {}, False),
    "dct-masked": ("dct", {}, True),
    "vq": ("vq", {"groups": 4, "bits": 8}, False),
    "residual": ("residual", {}, False),
    "sampled-masked": ("sampled", {"share": 0.5, "codec": ["sparse", {"step": 5}]}, True),
}


class Calibrator:
    """Compresses gradients with a codec whose random generator follows from seed, session and step."""

    def __init__(self, codec: GradientCodec, masked: bool, seed: int) -> None:
        self.codec = codec
        self.masked = masked
        self.seed = seed

    def send(self, gradient: np.ndarray, active: np.ndarray | None, session: int, step: int) -> tuple[bytes, float]:
        """Payload of `gradient` (n,C,h,w) f32, and its deviation ``||gradient - what arrives|| / ||gradient||``.

        `active` (n,C,h,w) bool is given when, and only when, the calibrator is masked.
        """
        rng = np.random.default_rng((self.seed, session, step))
        return self.codec.send(gradient, active, rng)


def calibrator(policy: str, seed: int) -> Calibrator:
    """The calibrator of `policy`: one of `POLICIES`, or one with settings, such as "sparse-masked:step=14,coarse=3"."""
    name, settings = parse_settings(policy)
    if name not in POLICIES:
        raise UnknownName("gradient policy", name, POLICIES, "there are: {}".format(", ".join(sorted(POLICIES))))
    codec_id, config, masked = POLICIES[name]
    return Calibrator(gradient_codec(codec_id, {**config, **settings}), masked, seed)


def default_policy(bundle: Bundle) -> str:
    """The policy of `bundle` unless one is asked for: what its rate was chosen with, else what suits its codec."""
    return bundle.gradient or ("none" if bundle.codec.codec_id == "raw" else "dct")

"""Calibrator: gradient at the cut -> the bytes to send, and how far what they say is from it."""

from typing import Any

import numpy as np

from edgekit.bundle import Bundle
from edgekit.codecs.base import GradientCodec
from edgekit.codecs.registry import gradient_codec, parse_settings
from edgekit.errors import UnknownName, UsageError

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


#: Unless another is asked for: the gradient of features that are sent as they are, and that of all others.
DEFAULT_RAW, DEFAULT = "none", "dct:bound=0.5"


class Calibrator:
    """Compresses gradients with a codec whose random generator follows from seed, session and step."""

    #: See `edgekit.server.bound`.
    bound: float | None = None

    def __init__(self, codec: GradientCodec, masked: bool, seed: int) -> None:
        self.codec = codec
        self.masked = masked
        self.seed = seed

    def send(self, gradient: np.ndarray, active: np.ndarray | None, session: int, step: int) -> tuple[bytes, float]:
        """Payload of `gradient` (n,C,h,w) f32, and its deviation ``||gradient - what arrives|| / ||gradient||``.

        `active` (n,C,h,w) bool is given when, and only when, the calibrator is masked.
        """
        return self.codec.send(gradient, active, self.rng(session, step))

    def rng(self, session: int, step: int) -> np.random.Generator:
        """What a step draws from."""
        return np.random.default_rng((self.seed, session, step))


def calibrator(policy: str, seed: int) -> Calibrator:
    """The calibrator of `policy`: one of `POLICIES`, or one with settings, such as "sparse-masked:step=14,coarse=3".

    `dct` has a setting more than its codec: "dct:bound=0.5", in the place of a zone.
    """
    name, settings = parse_settings(policy)
    if name not in POLICIES:
        raise UnknownName("gradient policy", name, POLICIES, "there are: {}".format(", ".join(sorted(POLICIES))))
    codec_id, config, masked = POLICIES[name]
    bound = settings.pop("bound", None) if codec_id == "dct" else None
    chosen = Calibrator(gradient_codec(codec_id, {**config, **settings}), masked, seed)
    if bound is not None:
        if not (isinstance(bound, (int, float)) and 0.01 <= bound <= 2):
            raise UsageError(f"{policy}: expected a bound of 0.01 to 2, the error of the front half's gradient")
        if "zone" in settings:
            raise UsageError(f"{policy}: the zone follows from the bound: leave one of them out")
        chosen.bound = float(bound)
    return chosen


def default_policy(bundle: Bundle) -> str:
    """The policy of `bundle` unless one is asked for: what its rate was chosen with, else what suits its codec."""
    return bundle.gradient or (DEFAULT_RAW if bundle.codec.codec_id == "raw" else DEFAULT)

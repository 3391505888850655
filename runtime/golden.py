"""What an engine must reproduce of a bundle's golden data before it is used."""

from typing import Dict, Iterable

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, BundleError

#: Share of the golden codes: rounding decides a near tie otherwise.
GOLDEN_SHARE = 0.99
#: Largest error of a golden code that is a float (codec raw), as a share of the largest code; float16 rounds by 0.0005.
GOLDEN_SLACK = 1e-3
#: Largest error of the golden gradients of all weights together: its L2 norm, as a share of theirs.
GOLDEN_GRADIENTS = 0.05


def agreeing(codes: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """bool, for each of `codes`: equal to the expected code, or for floats within `GOLDEN_SLACK` of it."""
    slack = GOLDEN_SLACK * np.abs(expected).max() if expected.dtype.kind == "f" else 0
    return np.asarray(np.abs(codes - expected) <= slack)


def require_codes(engine: str, codes: Arrays, expected: Arrays, what: str, meaning: str) -> None:
    """BackendError with `meaning` unless `engine` gave as `codes` what was expected; `what` calls them in words."""
    for name, given in codes.items():
        share = float(agreeing(given, expected[name]).mean())
        if share < GOLDEN_SHARE:
            raise BackendError(
                "{} reproduces {:.1%} of the {} '{}', expected {:.0%}: {}".format(
                    engine, share, what, name, GOLDEN_SHARE, meaning
                )
            )


def require_gradients(engine: str, gradients: Arrays, expected: Arrays, meaning: str) -> None:
    """BackendError with `meaning` unless `engine` gave `gradients` close to those expected, by name."""
    names = list(gradients)
    off = _length(gradients[name] - expected[name] for name in names)
    length = _length(expected[name] for name in names)
    if not off <= GOLDEN_GRADIENTS * length:
        raise BackendError(
            "{} reproduces the golden gradients with an error of {:.3g} of their length, expected at most {:g}: "
            "{}".format(engine, off / max(length, 1e-30), GOLDEN_GRADIENTS, meaning)
        )


def require_names(path: str, golden: Arrays, like: Dict[str, np.ndarray]) -> None:
    """BundleError unless the `golden` data of the bundle at `path` has the arrays that are `like`, in their shapes."""
    lacking = sorted(name for name, array in like.items() if name not in golden or golden[name].shape != array.shape)
    if lacking:
        raise BundleError("{}: golden.safetensors lacks {}: export it again".format(path, lacking))


def _length(arrays: Iterable[np.ndarray]) -> float:
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)))

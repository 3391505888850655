"""Checks that several codecs make: of a number of bits, of numbers to be sent, and of payloads."""

from typing import Any

import numpy as np

from edgekit.errors import PayloadError, UsageError


def bits_of(codec_id: str, bits: int) -> int:
    """`bits` itself; UsageError unless it is a whole number from 2 to 8."""
    if not (isinstance(bits, int) and 2 <= bits <= 8):
        raise UsageError("{} takes 2 to 8 bits, got {!r}".format(codec_id, bits))
    return bits


def check_sendable(sizes: Any) -> None:
    """UsageError unless `sizes`, the magnitudes of a gradient, are all finite."""
    if not np.isfinite(sizes).all():
        raise UsageError("a gradient with NaN or infinity cannot be sent: training diverged, lower --lr")


def check_length(payload: bytes, expected: int, what: str, of: str) -> None:
    """PayloadError unless `payload`, which is `what` and holds `of`, has `expected` bytes."""
    if len(payload) != expected:
        told = "{} of {} B, expected {} B for {}".format(what, len(payload), expected, of)
        raise PayloadError(told, min(len(payload), expected))


def finite_values(payload: bytes, count: int, what: str, of: str) -> np.ndarray:
    """(count,) f32, which are all that `payload` holds; PayloadError unless it has their length and they are finite."""
    check_length(payload, 4 * count, what, of)
    values = np.frombuffer(payload, dtype="<f4").astype(np.float32)
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values)))
        raise PayloadError("{} holds {}, expected finite numbers".format(what, values[first]), 4 * first)
    return values


def scales_of(payload: bytes, count: int, what: str) -> np.ndarray:
    """(count,) f32 at the beginning of `payload`, each a `what`; PayloadError unless all are finite and 0 or more."""
    scales = np.frombuffer(payload, dtype="<f4", count=count).astype(np.float32)
    good = np.isfinite(scales) & (scales >= 0)
    if not good.all():
        first = int(np.argmin(good))
        raise PayloadError("{} {} is {}, expected 0 or more".format(what, first, scales[first]), 4 * first)
    return scales

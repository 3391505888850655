"""sparse: stochastic rounding of the gradient to multiples of a large step: most become 0, and it is unbiased."""

from typing import Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.checks import check_sendable, scales_of
from edgekit.codecs.entropy.levels import decode, encode
from edgekit.codecs.gradients.systematic import systematic
from edgekit.errors import PayloadError, UsageError

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.float32(1e-45))


class Sparse(GradientCodec):
    """The gradient as integers times a step u; the integers are entropy coded (`edgekit.codecs.entropy.levels`).

    u is `step` times the root mean square of the batch's gradient, or, with ``of="largest"``, `step` times the largest
    magnitude of each image.

    Where `mask` is False the step is `coarse` times as long. There the feature decodes to zero, so the device's ReLU is
    probably off and passes no gradient: errors matter less. Where it is on after all, the expectation is still exact.

    ======  ====  ===================================================================================
    offset  size  field
    ======  ====  ===================================================================================
    0       4     little-endian float32 u of the batch; 4n, one per image, with ``of="largest"``
    ...     rest  the integers, see `levels`; nothing when all u are 0, as they are for zero gradients
    ======  ====  ===================================================================================

    Every image has two segments of integers: all where the mask is True come first, then all where it is False.

    >>> gradient = np.array([[[[0, 0, 0, 0, 0, 0, -3, 0]]]], dtype=np.float32)
    >>> payload = Sparse(step=1).pack(gradient, None, np.random.default_rng(0))
    >>> Sparse(step=1).unpack(payload, gradient.shape, None).shape
    (1, 1, 1, 8)
    """

    codec_id = "sparse"
    unbiased = True
    drops = False
    #: Rounds (n,C,h,w) f32 to int32. The bench replaces it; `unpack` does not depend on it.
    rounded = staticmethod(systematic)

    def __init__(self, step: float = 10.0, coarse: int = 2, of: str = "rms") -> None:
        if not (isinstance(step, (int, float)) and 0.01 <= step <= 1000):
            raise UsageError("sparse takes a step of 0.01 to 1000, got {!r}".format(step))
        if not (isinstance(coarse, int) and 1 <= coarse <= 16):
            raise UsageError("sparse takes a coarser step of 1 to 16 times the other, got {!r}".format(coarse))
        if of not in ("rms", "largest"):
            raise UsageError("sparse takes steps of rms or largest, got {!r}".format(of))
        self.step = step
        self.coarse = coarse
        self.of = of

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        """The payload. UsageError when `gradient` holds NaN or infinity, for which there is no step."""
        self.check_arrays(gradient, mask)
        units = self._units(gradient)
        head: bytes = units.astype("<f4").tobytes()
        if not units.any():
            return head
        scaled = gradient / np.where(units > 0, units, np.float32(1))[:, None, None, None]
        if mask is not None and self.coarse > 1:
            scaled *= np.where(mask, np.float32(1), np.float32(1 / self.coarse))
        levels = self.rounded(scaled, rng).reshape(-1)
        order, sizes = segments(gradient.shape, mask)
        ordered = levels if order is None else levels[order]
        places = np.flatnonzero(ordered)
        return head + encode(places, ordered[places].astype(np.int64), sizes)

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        units = self._read_units(payload, shape[0])
        gradient = np.zeros(shape, dtype=np.float32)
        start = 4 * len(units)
        if not units.any():
            if len(payload) != start:
                raise PayloadError("{} B after steps of 0, expected none".format(len(payload) - start), start)
            return gradient
        order, sizes = segments(shape, mask)
        places, levels = decode(payload, start, sizes)
        if order is not None:
            places = order[places]
        values = levels * units.astype(np.float64)[places // gradient[0].size if len(units) > 1 else 0]
        if mask is not None:
            values[~mask.reshape(-1)[places]] *= self.coarse
        gradient.reshape(-1)[places] = np.clip(values, -_LARGEST, _LARGEST)
        return gradient

    def _units(self, gradient: np.ndarray) -> np.ndarray:
        """(1,) or (n,) float32 steps."""
        if self.of == "rms":
            flat = gradient.reshape(-1)
            largest = float(np.abs(np.maximum(flat.max(), -flat.min())))
            # So that squares neither overflow nor underflow.
            shrunk = flat / np.float32(largest) if 0 < largest < np.inf else flat
            scales = np.array([largest * float(np.sqrt(np.mean(np.square(shrunk)))) if largest else 0.0])
        else:
            scales = np.abs(gradient).max(axis=(1, 2, 3)).astype(np.float64)
        check_sendable(scales)
        units: np.ndarray = np.clip(self.step * scales, np.where(scales > 0, _SMALLEST, 0), _LARGEST)
        return units.astype(np.float32)

    def _read_units(self, payload: bytes, n: int) -> np.ndarray:
        count = 1 if self.of == "rms" else n
        if len(payload) < 4 * count:
            raise PayloadError("sparse gradient of {} B, expected {} steps".format(len(payload), count), len(payload))
        return scales_of(payload, count, "step")


def segments(shape: Sequence[int], mask: Optional[np.ndarray]) -> Tuple[Optional[np.ndarray], np.ndarray]:
    """Row-major places of all elements, segment by segment (None: in order), and the sizes of the segments."""
    n = shape[0]
    each = int(np.prod(shape[1:]))
    if mask is None or mask.all():
        return None, np.full(n, each)
    flat = mask.reshape(-1)
    first = mask.reshape(n, -1).sum(axis=1)
    return np.concatenate((np.flatnonzero(flat), np.flatnonzero(~flat))), np.concatenate((first, each - first))

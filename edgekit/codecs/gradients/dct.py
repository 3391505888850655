"""dct: the gradient's discrete cosine transform (DCT), quantised with a dead zone, low frequencies more finely.

A device needs the gradient for the gradients of its weights: sums over positions of the gradient times features. After
a ReLU, features are smooth and of one sign, so these sums depend mostly on low frequencies, most of all on the mean.
"""

import math
import struct
from functools import lru_cache
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import GradientCodec
from edgekit.codecs.checks import check_sendable
from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.levels import decode, encode
from edgekit.codecs.entropy.native import coefficients as native
from edgekit.codecs.entropy.reference import coefficients as reference
from edgekit.errors import PayloadError, UsageError

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.float32(1e-45))
_HEAD = struct.Struct("<ff")
#: Scales are coded in notches, 8 to an octave; notch 0 stands for 8 octaves (64 notches) above the scales' rms.
_NOTCHES, _ABOVE = 8, 64
#: Every channel is divided by its rms to this power.
_BALANCE = 0.75
#: Largest gain of what arrives: beyond it, noise would become louder than the gradient that it hides.
_LONGEST = 4.0


class DCT(GradientCodec):
    """The DCT-II of every channel, (h,w) coefficients, in whole multiples of a unit.

    1. Channels are balanced: each is divided by its root mean square (rms) to the power of 3/4. A batch norm behind the
       cut may scale a channel up, and so its gradient; a batch norm before the cut scales that gradient down again. So
       one channel can have nine tenths of all energy and still matter to the weights no more than the others.
    2. The coefficient at (i,j) is multiplied by 1 / (1 + slope (i/h + j/w)): high frequencies get a coarser unit.
    3. The unit of an image is `zone` times the geometric mean of the rms of its coefficients and that of all images'.
       So an image of a small gradient, which the network knows already, gets few bytes: one unit for all images would
       spend least on a given error, one in proportion to each would keep every image's gradient as well. Coefficients
       in the dead zone, below one unit, are not sent. The others are truncated to whole units, their levels; the mean
       of what truncation cuts off, the excess, is sent once and added to all of them.
    4. All that arrives is multiplied by one gain, at most 4, so that its projection on the batch's transform is as
       long as that transform: what is sent makes up for what is not. It is biased: small coefficients never arrive.

    Where `mask` is False the gradient is taken as 0, and arrives as 0.

    ======  ====  ===================================================================================
    offset  size  field
    ======  ====  ===================================================================================
    0       4     little-endian float32 unit u; a zero gradient is u = 0 and nothing else
    4       4     little-endian float32 excess e, 0 to 1: a level l arrives as (\\|l| + e) units, l's sign
    8       n     uint8 k of each image: its unit is ``u 2**(8 - k/8)``
    8 + n   C     uint8 k of each channel: it was divided by ``2**(8 - k/8)``
    then    rest  the levels, see `levels`: a segment for every i + j, and in it the frequencies in row-major order,
                  of each all images' channels
    ======  ====  ===================================================================================

    >>> gradient = np.ones((1, 2, 4, 4), dtype=np.float32)
    >>> payload = DCT().pack(gradient, None, np.random.default_rng(0))
    >>> DCT().unpack(payload, gradient.shape, None)[0, 0, 0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    codec_id = "dct"

    def __init__(self, zone: float = 1.5, slope: float = 4.0) -> None:
        if not (isinstance(zone, (int, float)) and 0.01 <= zone <= 100):
            raise UsageError("dct takes a zone of 0.01 to 100, got {!r}".format(zone))
        if not (isinstance(slope, (int, float)) and 0 <= slope <= 100):
            raise UsageError("dct takes a slope of 0 to 100, got {!r}".format(slope))
        self.zone = zone
        self.slope = slope

    def pack(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> bytes:
        """UsageError when `gradient` holds NaN or infinity, which no unit can carry."""
        return _write(self._quantised(gradient, mask)[0], gradient.shape)

    def send(self, gradient: np.ndarray, mask: Optional[np.ndarray], rng: np.random.Generator) -> Tuple[bytes, float]:
        if mask is not None:
            return super().send(gradient, mask, rng)
        sent, deviation = self._quantised(gradient, mask)
        return _write(sent, gradient.shape), deviation

    def unpack(self, payload: bytes, shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        return self._restored(_read(payload, shape), shape, mask)

    def _quantised(self, gradient: np.ndarray, mask: Optional[np.ndarray]) -> "Tuple[Optional[_Sent], float]":
        """What is sent of `gradient`, None where all of it is 0; and its deviation from that, before the mask."""
        self.check_arrays(gradient, mask)
        # In one order of memory, so that the same sums are made in the same order.
        gradient = np.ascontiguousarray(gradient if mask is None else np.where(mask, gradient, np.float32(0)))
        largest = max(float(gradient.max()), -float(gradient.min()))
        check_sendable(largest)
        if not largest:
            return None, 0.0
        n, c, h, w = gradient.shape
        # So that squares neither overflow nor underflow.
        planes = gradient.reshape(n, c, h * w) / np.float32(largest)
        energies, _ = _measure(planes.reshape(n * c, -1))
        channels = _notches(np.sqrt(energies.reshape(n, c).sum(axis=0) / (n * h * w)) ** _BALANCE)
        weights, scales = self._weights(h, w), _spread(channels)
        planes /= scales[:, None]
        coefficients = _transform(planes.reshape(n, c, h, w), False)
        coefficients *= weights
        squares, largest_of = _measure(coefficients.reshape(n, -1))
        # No longer than half a notch below its largest coefficient: then an image whose length is at least the rms of
        # all sends that one, however the notch is rounded.
        most = largest_of.astype(np.float64) / self.zone * 2 ** (-0.5 / _NOTCHES - 1e-3)
        lengths = np.minimum(np.sqrt(squares / (c * h * w)), most)
        lengths = np.sqrt(lengths * _rms(lengths))
        rms = _rms(lengths)
        images = _notches(lengths)
        units = self.zone * rms * _spread(images)
        places, levels, sizes, own, back = pick(native.quantise, reference.quantise)(
            coefficients.reshape(n, c, h * w), units, _bands(h, w)[0], weights.reshape(-1), scales
        )
        whole = np.abs(levels)
        excess = float(np.float32((sizes / own - whole).mean())) if len(levels) else 0.0
        arriving = (whole + excess) * own
        longer = min(float(squares.sum()) / float((arriving * sizes).sum()), _LONGEST)
        unit = min(max(largest * self.zone * rms * longer, _SMALLEST), _LARGEST)
        sent = _Sent(float(np.float32(unit)), excess, images, channels, places, levels)
        # The transform keeps lengths. Of the energy before balance and weights, this part arrives.
        arriving *= longer
        kept = float((np.square(back, dtype=np.float64) * arriving * (2 * sizes - arriving)).sum())
        return sent, math.sqrt(max(1 - kept / float(energies.sum()), 0.0))

    def _restored(self, sent: "Optional[_Sent]", shape: Sequence[int], mask: Optional[np.ndarray]) -> np.ndarray:
        """The gradient that arrives."""
        if sent is None:
            return np.zeros(shape, dtype=np.float32)
        h, w = shape[2:]
        # So that no sum in the inverse transform overflows float32.
        most = _LARGEST / (4 * h * w)
        coefficients = pick(native.restore, reference.restore)(
            sent.places, sent.levels, _bands(h, w)[0], self._weights(h, w).reshape(-1),
            (_spread(sent.images), _spread(sent.channels)), sent.unit, sent.excess, most,
        )  # fmt: skip
        gradient = _transform(coefficients.reshape(shape), True)
        return gradient if mask is None else np.where(mask, gradient, np.float32(0))

    def _weights(self, h: int, w: int) -> np.ndarray:
        """(h,w) float32: the factor of every coefficient."""
        frequencies = np.arange(h)[:, None] / h + np.arange(w) / w
        return np.asarray(1 / (1 + self.slope * frequencies), dtype=np.float32)


class _Sent(NamedTuple):
    """What a payload says of a gradient that is not 0."""

    unit: float
    excess: float
    #: (n,) and (C,) uint8: notches.
    images: np.ndarray
    channels: np.ndarray
    #: (k,) int64 each, see `levels`.
    places: np.ndarray
    levels: np.ndarray


def _write(sent: Optional[_Sent], shape: Sequence[int]) -> bytes:
    if sent is None:
        return bytes(4)
    n, channels, h, w = shape
    head: bytes = _HEAD.pack(sent.unit, sent.excess) + sent.images.tobytes() + sent.channels.tobytes()
    return head + encode(sent.places, sent.levels, _bands(h, w)[1] * (n * channels))


def _read(payload: bytes, shape: Sequence[int]) -> Optional[_Sent]:
    """The inverse of `_write`. PayloadError on bytes that it does not write."""
    n, channels, h, w = shape
    if payload == bytes(4):
        return None
    start = _HEAD.size + n + channels
    if len(payload) < start:
        raise PayloadError("dct gradient of {} B, expected more than {}".format(len(payload), start), len(payload))
    unit, excess = _HEAD.unpack_from(payload)
    if not 0 < unit <= _LARGEST:
        raise PayloadError("unit {}, expected more than 0 and finite".format(unit), 0)
    if not 0 <= excess <= 1:
        raise PayloadError("excess {}, expected 0 to 1".format(excess), 4)
    notches = np.frombuffer(payload, dtype=np.uint8, count=n + channels, offset=_HEAD.size)
    return _Sent(unit, excess, notches[:n], notches[n:], *decode(payload, start, _bands(h, w)[1] * (n * channels)))


def _measure(rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    return pick(native.measure, reference.measure)(rows)


def _rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _notches(lengths: np.ndarray) -> np.ndarray:
    """uint8: each of `lengths` over their root mean square, in notches."""
    octaves = np.log2(np.maximum(lengths / _rms(lengths), 1e-30))
    notches: np.ndarray = np.rint(_ABOVE - _NOTCHES * octaves).clip(0, 255).astype(np.uint8)
    return notches


def _spread(notches: np.ndarray) -> np.ndarray:
    """float32: the scales of `notches`, inverse of `_notches` but for its rounding."""
    return np.asarray(np.exp2((_ABOVE - notches.astype(np.float32)) / np.float32(_NOTCHES)))


@lru_cache(maxsize=8)
def _bands(h: int, w: int) -> Tuple[np.ndarray, np.ndarray]:
    """Row-major places of all frequencies (i,j) by rising i + j, and how many there are of each sum."""
    sums = np.add.outer(np.arange(h), np.arange(w)).reshape(-1)
    return np.argsort(sums, kind="stable"), np.bincount(sums)


def _transform(planes: np.ndarray, inverse: bool) -> np.ndarray:
    """Replaces every plane of (n,C,h,w) f32 by its orthonormal DCT-II, or by the inverse of that."""
    rows, columns = (_basis(size) for size in planes.shape[2:])
    if inverse:
        return np.matmul(rows.T, np.matmul(planes, columns), out=planes)
    return np.matmul(rows, np.matmul(planes, columns.T), out=planes)


@lru_cache(maxsize=8)
def _basis(size: int) -> np.ndarray:
    """(size,size) f32: one row per frequency, its cosine."""
    k = np.arange(size)
    rows = np.cos(np.pi / size * (k + 0.5) * k[:, None]) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)

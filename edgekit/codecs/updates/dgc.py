"""dgc: the largest values of each array, exactly: deep gradient compression (Lin et al. 2018, arXiv:1712.01887)."""

import struct
from typing import Any, Dict, List, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.entropy import bits
from edgekit.codecs.updates import coding
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.codecs.updates.flat import Shapes, flat, named, shapes_of, sizes_of
from edgekit.codecs.updates.top import count_of, keep_of, largest
from edgekit.errors import PayloadError, ShapeError, UsageError

_HEAD = struct.Struct("<I")
#: Of a float32: bits of the mantissa, as coded in two parts, and the exponent of infinity and NaN.
_LOW, _HIGH = 16, 7
_NOT_FINITE = 255


class DGC(UpdateCodec):
    """The share `keep` of the values of each array, those of largest magnitude, without loss.

    `momentum`, `clip` and `warmup` are of the sender's end, see `MomentumCorrection`. By default there is no momentum:
    an update of a round has that of the device's own steps in it already.

    ==============  ==============  =========================================================================
    offset          size            field, of t arrays in order of name
    ==============  ==============  =========================================================================
    0               4               little-endian uint32: how many values are kept, k
    4               t               lowest exponent of those kept in each array, as in a float32; 0 if none
    4 + t           2k              low 16 bits of the mantissas, little-endian
    4 + t + 2k      ceil(7k / 8)    high 7 bits of the mantissas, see `edgekit.codecs.entropy.bits`
    ...             rest            levels: 1 for the lowest exponent and so on, with the sign; 0 where nothing
                                    is kept, see `edgekit.codecs.updates.coding`
    ==============  ==============  =========================================================================

    >>> update = {"a": np.float32([0.1, -4, 2, 0])}
    >>> DGC(keep=0.25).unpack(DGC(keep=0.25).pack(update, np.random.default_rng(0)), {"a": (4,)})
    {'a': array([ 0., -4.,  0.,  0.], dtype=float32)}
    """

    codec_id = "dgc"

    def __init__(self, keep: float = 0.001, momentum: float = 0.0, clip: float = 0.0, warmup: int = 4) -> None:
        self.keep = keep_of(self.codec_id, keep)
        if not (isinstance(momentum, (int, float)) and 0 <= momentum < 1):
            raise UsageError("dgc takes a momentum of 0 or more, and below 1, got {!r}".format(momentum))
        if not (isinstance(clip, (int, float)) and 0 <= clip < float("inf")):
            raise UsageError("dgc takes a norm to clip at of 0 (none) or more, got {!r}".format(clip))
        if not (isinstance(warmup, int) and 0 <= warmup <= 10**6):
            raise UsageError("dgc takes 0 to 1000000 updates of warm-up, got {!r}".format(warmup))
        self.momentum = momentum
        self.clip = clip
        self.warmup = warmup

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        self.check_update(update)
        shapes = shapes_of(update)
        values = flat(update)
        kept, owners = self._kept(values, sizes_of(shapes))
        words = values[kept].view(np.uint32).astype(np.int64)
        exponents = words >> 23 & 255
        lowest = np.full(len(shapes), 255, dtype=np.int64)
        np.minimum.at(lowest, owners, exponents)
        levels = np.zeros(len(values), dtype=np.int64)
        levels[kept] = (1 + exponents - lowest[owners]) * np.where(words >> 31, -1, 1)
        lowest[np.bincount(owners, minlength=len(lowest)) == 0] = 0
        return b"".join([
            _HEAD.pack(len(kept)), lowest.astype(np.uint8).tobytes(), words.astype("<u2").tobytes(),
            bits.pack(words >> _LOW & (1 << _HIGH) - 1, _HIGH), coding.encode(levels, shapes),
        ])  # fmt: skip

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        sizes = sizes_of(shapes)
        if len(payload) < _HEAD.size + len(sizes):
            told = "dgc update of {} B, expected a head of {} arrays".format(len(payload), len(sizes))
            raise PayloadError(told, len(payload))
        (count,) = _HEAD.unpack_from(payload)
        middle = _HEAD.size + len(sizes) + 2 * count
        start = middle + bits.size(count, _HIGH)
        if count > sum(sizes) or len(payload) < start:
            told = "{} values of {} in a dgc update of {} B".format(count, sum(sizes), len(payload))
            raise PayloadError(told, 0)
        lowest = np.frombuffer(payload, dtype=np.uint8, count=len(sizes), offset=_HEAD.size).astype(np.int64)
        low = np.frombuffer(payload, dtype="<u2", count=count, offset=middle - 2 * count)
        high = bits.unpack(payload[:start], count, _HIGH, middle)
        levels = coding.decode(payload, start, shapes)
        kept = np.flatnonzero(levels)
        if len(kept) != count:
            raise PayloadError("{} levels that are not 0, expected {}".format(len(kept), count), start)
        exponents = np.abs(levels[kept]) - 1 + np.repeat(lowest, sizes)[kept]
        if exponents.max(initial=0) >= _NOT_FINITE:
            raise PayloadError("a value that is not finite", start)
        words = (levels[kept] < 0).astype(np.uint32) << 31 | exponents.astype(np.uint32) << 23
        words |= high.astype(np.uint32) << _LOW | low
        values = np.zeros(sum(sizes), dtype=np.float32)
        values[kept] = words.view(np.float32)
        return named(values, shapes)

    def formula_bits(self, shapes: Shapes) -> float:
        """Of every value kept 32 bits, and 16 for the number of zeros before it, as in the paper."""
        return 48.0 * sum(count_of(size, self.keep) for size in sizes_of(shapes))

    def formula_bits_of(self, sent: Arrays) -> float:
        return 48.0 * sum(np.count_nonzero(array) for array in sent.values())

    def sender(self, learns: bool = True) -> UpdateSender:
        return MomentumCorrection(self, learns)

    def _kept(self, values: np.ndarray, sizes: List[int]) -> Tuple[np.ndarray, np.ndarray]:
        """(k,) int64: the places of the values that are kept, and the number of the array of each."""
        places, owners, start = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
        for owner, size in enumerate(sizes):
            some = largest(values[start : start + size], count_of(size, self.keep))
            places.append(start + some)
            owners.append(np.full(len(some), owner))
            start += size
        return np.concatenate(places), np.concatenate(owners)


class MomentumCorrection(ErrorFeedback):
    """The sender's end of `DGC`: error feedback of a momentum, instead of a momentum of what is fed back.

    ::

        velocity = momentum * velocity + update, shortened to the norm `clip` where it is longer
        given = residual + velocity, of which the largest are sent
        where sent: residual = velocity = 0 (momentum factor masking)

    In the first `warmup` updates more is kept, the shares falling geometrically: update i of them, from 0, keeps
    ``keep ** ((i + 1) / (warmup + 1))``. An end that did not learn has neither momentum nor clipping.

    Its state is the residual, the velocity, and how many updates there were.
    """

    def __init__(self, codec: DGC, learns: bool) -> None:
        super().__init__(codec)
        self._keep, self._warmup = codec.keep, codec.warmup
        self._momentum, self._clip = (codec.momentum, codec.clip) if learns else (0.0, 0.0)
        self._velocity: Arrays = {}
        self._sent = 0

    @property
    def state(self) -> Dict[str, Any]:
        if not self._sent:
            return {}
        velocity = {name: array.copy() for name, array in self._velocity.items()}
        return {"left_out": super().state, "velocity": velocity, "sent": self._sent}

    def restore(self, state: Dict[str, Any]) -> None:
        if not state:
            state = {"left_out": {}, "velocity": {}, "sent": 0}
        if set(state) != {"left_out", "velocity", "sent"}:
            raise ShapeError("a sender's state with {}: {!r} has none".format(", ".join(sorted(state)), self.codec))
        self.codec.check_update(state["velocity"])
        super().restore(state["left_out"])
        self._velocity = {name: array.copy() for name, array in state["velocity"].items()}
        self._sent = state["sent"]

    def send(self, update: Arrays, rng: np.random.Generator) -> Tuple[bytes, Arrays]:
        self.check(update)
        velocity = self._clipped(update)
        if self._velocity:
            with np.errstate(over="ignore", invalid="ignore"):
                velocity = {
                    name: np.asarray(np.float32(self._momentum) * self._velocity[name] + array)
                    for name, array in velocity.items()
                }
        payload, arrives = super().send(velocity, rng)
        self._sent += 1
        if self._momentum:
            self._velocity = {
                name: np.where(arrives[name] != 0, np.float32(0), array) for name, array in velocity.items()
            }
        return payload, arrives

    def _pack(self, given: Arrays, rng: np.random.Generator) -> bytes:
        warm = min((self._sent + 1) / (self._warmup + 1), 1.0)
        return DGC(keep=self._keep**warm).pack(given, rng)

    def _clipped(self, update: Arrays) -> Arrays:
        if not self._clip:
            return update
        squares = sum(float(np.square(array.astype(np.float64)).sum()) for array in update.values())
        shorter = np.float32(min(self._clip / max(squares**0.5, 1e-300), 1.0))
        return {name: np.asarray(array * shorter) for name, array in update.items()}

"""dhqc: the largest values of the update, by sign and interval (Jiang et al.: deep hierarchy quantisation)."""

from typing import Tuple

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.checks import scales_of
from edgekit.codecs.updates import coding
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.codecs.updates.flat import Shapes, flat, named, shapes_of, sizes_of
from edgekit.codecs.updates.top import count_of, keep_of, largest
from edgekit.errors import PayloadError, UsageError

INTERVALS = 8
LOCATIONS = ("lower", "middle", "mean")
_HEAD = 8


class DHQC(UpdateCodec):
    """The share `keep` of all values, those of largest magnitude, as their sign and the interval of their magnitude.

    From the least magnitude that is kept, the threshold, to the largest of all there are 8 intervals of one width.
    What arrives is, by `location`, the interval's lower edge, as in the paper, its middle, or the mean of what is in
    it, told in 255ths of the width. The sender adds to the next update not only the values that were not kept, as the
    paper does, but also by how much kept ones are off within their interval.

    ======  ====  ==========================================================================================
    offset  size  field
    ======  ====  ==========================================================================================
    0       4     little-endian float32 threshold
    4       4     little-endian float32 largest magnitude
    8       8     only with ``location="mean"``: where in each interval the mean is, uint8
    ...     rest  levels: 1 to 8 for the interval, with the sign; 0 where nothing is kept, see
                  `edgekit.codecs.updates.coding`
    ======  ====  ==========================================================================================

    >>> update = {"a": np.float32([1, -9, 2, 0])}
    >>> DHQC(keep=0.75).unpack(DHQC(keep=0.75).pack(update, np.random.default_rng(0)), {"a": (4,)})
    {'a': array([ 1., -8.,  2.,  0.], dtype=float32)}
    """

    codec_id = "dhqc"

    def __init__(self, keep: float = 0.01, location: str = "lower") -> None:
        self.keep = keep_of(self.codec_id, keep)
        if location not in LOCATIONS:
            raise UsageError("dhqc takes a location of {}, got {!r}".format(", ".join(LOCATIONS), location))
        self.location = location

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        self.check_update(update)
        values = flat(update)
        kept = largest(values, count_of(len(values), self.keep))
        magnitudes = np.abs(values[kept])
        head = np.array([magnitudes.min(), magnitudes.max()] if len(kept) else [0, 0], dtype="<f4")
        least, width = _scale(head)
        # In widths from the threshold; all in the first interval where there is one magnitude alone.
        reach = (magnitudes - least) / width if width else np.zeros(len(kept))
        intervals = np.minimum(reach.astype(np.int64), INTERVALS - 1)
        levels = np.zeros(len(values), dtype=np.int64)
        levels[kept] = np.sign(values[kept]).astype(np.int64) * (1 + intervals)
        return head.tobytes() + self._means(reach, intervals) + coding.encode(levels, shapes_of(update))

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        start = _HEAD + (INTERVALS if self.location == "mean" else 0)
        if len(payload) < start:
            raise PayloadError("dhqc update of {} B, expected {} and levels".format(len(payload), start), len(payload))
        head = scales_of(payload, 2, "magnitude")
        if head[0] > head[1]:
            raise PayloadError("magnitudes from {} to {}".format(*head), 0)
        levels = coding.decode(payload, start, shapes)
        magnitudes = np.abs(levels)
        if magnitudes.max(initial=0) > INTERVALS:
            raise PayloadError("interval {}, expected 1 to {}".format(magnitudes.max(), INTERVALS), start)
        least, width = _scale(head)
        inside = self._inside(payload[_HEAD:start])
        points = np.append(0, np.minimum(least + width * (np.arange(INTERVALS) + inside), head[1]))
        return named((np.sign(levels) * points[magnitudes]).astype(np.float32), shapes)

    def formula_bits(self, shapes: Shapes) -> float:
        """Of every value kept a sign and 3 bits, and the two magnitudes: as in the paper, no places."""
        means = 8 * INTERVALS if self.location == "mean" else 0
        return 4.0 * count_of(sum(sizes_of(shapes)), self.keep) + 8 * _HEAD + means

    def sender(self, learns: bool = True) -> UpdateSender:
        return ErrorFeedback(self)

    def _means(self, reach: np.ndarray, intervals: np.ndarray) -> bytes:
        """Where in each interval the mean of its values is, for the payload; `reach` is in widths."""
        if self.location != "mean":
            return b""
        counts = np.maximum(np.bincount(intervals, minlength=INTERVALS), 1)
        means = np.bincount(intervals, reach - intervals, INTERVALS) / counts
        return np.rint(255 * means).astype(np.uint8).tobytes()

    def _inside(self, means: bytes) -> np.ndarray:
        """Where in each interval its values arrive, in widths: (8,) or () float64."""
        if self.location == "mean":
            return np.frombuffer(means, dtype=np.uint8) / 255
        return np.array(0.5 if self.location == "middle" else 0.0)


def _scale(head: np.ndarray) -> Tuple[float, float]:
    """The threshold, and the width of an interval."""
    least, most = (float(each) for each in head)
    return least, (most - least) / INTERVALS

"""topk: the values of largest magnitude of every image as float16, with their positions; a baseline.

The graph emits the feature itself, and `pack` picks the values on the CPU: TensorRT's TopK takes at most 3840 of them.
Positions are coded by Elias and Fano's method (Elias, 1974, doi:10.1145/321812.321820): their upper bits as a bitmap,
their lower bits as they are. That takes about 2 + log2(N / k) bits a position, and the same for any k positions, so k
can be chosen beforehand to fit.
"""

from typing import NamedTuple, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.checks import bits_of, check_length
from edgekit.codecs.entropy import bits as bitpack
from edgekit.errors import PayloadError
from edgekit.tensors import TensorSpec

#: Largest float16.
LARGEST = 65504


class Layout(NamedTuple):
    """The sizes of one image: `kept` of `total` values, `low` lower bits a position, `high` bits of bitmap."""

    total: int
    kept: int
    low: int
    high: int


class TopK(FeatureCodec):
    """The k values of largest magnitude, of the N = C*h*w of an image; among equals the first ones. `bits` is 2 to 8.

    k is the largest that fits into the bytes of `uniform` at the same bits, at least 1:
    ``16*k + low*k + k + top + 1 <= N*bits`` with ``top = (N - 1) >> low`` and the `low` for which k is largest. For a
    batch of n images:

    ==========================  ========================================================================================
    bytes                       field
    ==========================  ========================================================================================
    ceil(n*(k + top + 1) / 8)   bitmap per image, most significant bit first: bit ``(position >> low) + i`` for its i-th
                                position, in ascending order
    ceil(n*k*low / 8)           the low bits of the positions, packed
    2*n*k                       the values, float16 little-endian, in the order of the positions
    ==========================  ========================================================================================

    >>> feature = np.array([0, 1, -3, 2, 0, 0, 0, 0], dtype=np.float32).reshape(1, 8, 1, 1)
    >>> TopK(bits=4).pack(TopK(bits=4).quantize(feature, {})).hex()
    '808000c2'
    """

    codec_id = "topk"

    def __init__(self, bits: int = 4) -> None:
        self.bits = bits_of(self.codec_id, bits)

    def layout(self, feature: Sequence[int]) -> Layout:
        """The layout for images of shape `feature` (C,h,w)."""
        total = int(np.prod(feature))
        choices = []
        for low in range(17):
            buckets = ((total - 1) >> low) + 1
            kept = min(max((total * self.bits - buckets) // (17 + low), 1), total)
            choices.append(Layout(total, kept, low, kept + buckets))
        return max(choices, key=lambda layout: (layout.kept, -layout.kept * layout.low - layout.high))

    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        return (TensorSpec("codes", "float32", feature.shape),)

    def formula_bits(self, feature: Sequence[int]) -> float:
        layout = self.layout(feature)
        return float(layout.kept * (16 + layout.low) + layout.high)

    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        return {"codes": feature}

    def pack(self, codes: Arrays) -> bytes:
        feature = codes["codes"]
        layout = self.layout(feature.shape[1:])
        rows, chosen = self._select(feature)
        positions = np.flatnonzero(chosen).reshape(-1, layout.kept) % layout.total
        bitmap = np.zeros((len(rows), layout.high), dtype=np.uint8)
        np.put_along_axis(bitmap, (positions >> layout.low) + np.arange(layout.kept), 1, axis=1)
        low = bitpack.pack(positions & ((1 << layout.low) - 1), layout.low) if layout.low else b""
        values: bytes = rows[chosen].astype("<f2").tobytes()
        return np.packbits(bitmap).tobytes() + low + values

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        n, (total, kept, low, high) = shape[0], self.layout(shape[1:])
        sizes = bitpack.size(n * high, 1), bitpack.size(n * kept, low), 2 * n * kept
        check_length(payload, sum(sizes), "topk feature", str(list(shape)))
        bitmap = bitpack.unpack(payload[: sizes[0]], n * high, 1).reshape(n, high)
        if (bitmap.sum(axis=1) != kept).any():
            raise PayloadError("topk bitmap that does not mark {} positions of every image".format(kept))
        positions = (np.flatnonzero(bitmap).reshape(n, kept) % high - np.arange(kept)) << low
        if low:
            lower = payload[: sizes[0] + sizes[1]]
            positions |= bitpack.unpack(lower, n * kept, low, start=sizes[0]).reshape(n, kept)
        if (np.diff(positions, axis=1) <= 0).any() or (positions >= total).any():
            raise PayloadError("topk positions that do not ascend below {}".format(total), sizes[0])
        values = np.frombuffer(payload, dtype="<f2", offset=sizes[0] + sizes[1]).astype(np.float32).reshape(n, kept)
        if not np.isfinite(values).all():
            raise PayloadError("topk values that are not finite", sizes[0] + sizes[1])
        rows = np.zeros((n, total), dtype=np.float32)
        np.put_along_axis(rows, positions, values, axis=1)
        return {"codes": rows.reshape(shape)}

    def dequantize(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        # The device calls this with the whole feature, the server with the values that arrived: the result is equal.
        rows, chosen = self._select(codes["codes"])
        return np.where(chosen, rows, np.float16(0)).astype(np.float32).reshape(codes["codes"].shape)

    def _select(self, feature: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """`feature` (n,C,h,w) as (n,N) float16, and (n,N) bool: which k values of each image are kept."""
        rows = np.clip(feature.reshape(len(feature), -1), -LARGEST, LARGEST).astype(np.float16)
        kept = self.layout(feature.shape[1:]).kept
        size = rows.view(np.uint16) & np.uint16(0x7FFF)  # ordered as the magnitudes are
        least = np.partition(size, size.shape[1] - kept, axis=1)[:, -kept][:, None]
        larger, equal = size > least, size == least
        missing = kept - larger.sum(axis=1)[:, None]
        return rows, larger | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= missing))

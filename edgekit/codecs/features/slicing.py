"""slicing: progressive slicing (CLIO: Huang et al., 2020, doi:10.1145/3372224.3419193), a baseline.

It sends the most important channels as floats, as many as fit into the bytes of `uniform` at the same bits. The other
channels decode as zeros.
"""

from typing import Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.codecs.checks import bits_of
from edgekit.codecs.features.raw import Raw
from edgekit.errors import ShapeError
from edgekit.tensors import TensorSpec, check_all


class Slicing(Raw):
    """The ``max(1, C * bits // 32)`` most important channels; `bits` is 2 to 8.

    Table: "order" (C,) int64, the most important channel first. Payload: those channels as little-endian float32,
    row-major (image, channel, row, column).

    >>> feature = np.array([1, -2, 3, 4], dtype=np.float32).reshape(1, 4, 1, 1)
    >>> Slicing(bits=8).pack(Slicing(bits=8).quantize(feature, {})).hex()
    '0000803f'
    """

    codec_id = "slicing"

    def __init__(self, bits: int = 4) -> None:
        self.bits = bits_of(self.codec_id, bits)

    def kept(self, channels: int) -> int:
        """The number of channels that are sent, of `channels` in all."""
        return max(1, channels * self.bits // 32)

    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        n, channels, h, w = feature.shape
        return (TensorSpec("codes", "float32", (n, self.kept(channels), h, w)),)

    def calibrate(self, features: np.ndarray, seed: int, significance: Optional[np.ndarray] = None) -> Arrays:
        """The order of channels by falling `significance` (C,), or by falling energy of `features` where it is None."""
        if significance is None:
            significance = (features.astype(np.float64) ** 2).mean(axis=(0, 2, 3))
        return {"order": np.argsort(-significance, kind="stable").astype(np.int64)}

    def check_tables(self, channels: int, tables: Arrays) -> None:
        check_all((TensorSpec("order", "int64", (channels,)),), tables, "tables of {!r}".format(self))
        if sorted(tables["order"].tolist()) != list(range(channels)):
            raise ShapeError("tables of {!r}: the order must be a permutation".format(self))

    def order(self, channels: int, tables: Arrays) -> np.ndarray:
        return tables["order"]

    def formula_bits(self, feature: Sequence[int]) -> float:
        return 32.0 * self.kept(feature[0]) * feature[1] * feature[2]

    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        return {"codes": feature[:, : self.kept(feature.shape[1])]}

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        n, channels, h, w = shape
        return super().unpack(payload, (n, self.kept(channels), h, w))

    def dequantize(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        n, kept, h, w = codes["codes"].shape
        feature = np.zeros((n, len(tables["order"]), h, w), dtype=np.float32)
        feature[:, :kept] = codes["codes"]
        return feature

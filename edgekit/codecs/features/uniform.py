"""uniform: uniform quantisation (UQ) between the batch's smallest and largest value; the quantised baseline."""

import struct
from typing import Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.checks import bits_of
from edgekit.codecs.entropy import bits as bitpack
from edgekit.errors import PayloadError
from edgekit.tensors import TensorSpec

#: Smaller ranges count as this one, so that the codes of a constant feature are 0.
SMALLEST_RANGE = np.float32(1e-12)
#: Payloads with larger values are refused, so that decoding cannot overflow float32.
LARGEST = 1e38


class Uniform(FeatureCodec):
    """Uniform quantisation per tensor, 2 to 8 bits: ``code = floor((z - low) / (high - low) * (2**bits - 1) + 1/2)``.

    ======  ====  =============================================
    offset  size  field
    ======  ====  =============================================
    0       4     low, float32 little-endian
    4       4     high, float32
    8       ...   n*C*h*w codes of `bits` bits, row-major
    ======  ====  =============================================

    >>> feature = np.array([0, 1, 2, 3], dtype=np.float32).reshape(1, 1, 2, 2)
    >>> Uniform(bits=4).pack(Uniform(bits=4).quantize(feature, {})).hex()
    '000000000000404005af'
    """

    codec_id = "uniform"

    def __init__(self, bits: int = 4) -> None:
        self.bits = bits_of(self.codec_id, bits)

    @property
    def levels(self) -> np.float32:
        """The largest code, as a float."""
        return np.float32(2**self.bits - 1)

    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        return (
            TensorSpec("codes", "int32", feature.shape),
            TensorSpec("low", "float32", (1,)),
            TensorSpec("high", "float32", (1,)),
        )

    def formula_bits(self, feature: Sequence[int]) -> float:
        return self.bits * float(np.prod(feature))

    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        low, high = feature.min(keepdims=True).reshape(1), feature.max(keepdims=True).reshape(1)
        scale = self.levels / np.maximum(high - low, SMALLEST_RANGE)
        codes = ((feature - low) * scale + np.float32(0.5)).astype(np.int32)
        return {"codes": codes, "low": low, "high": high}

    def pack(self, codes: Arrays) -> bytes:
        return struct.pack("<ff", codes["low"][0], codes["high"][0]) + bitpack.pack(codes["codes"], self.bits)

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        if len(payload) < 8:
            raise PayloadError("uniform payload of {} B, expected at least 8".format(len(payload)), len(payload))
        low, high = np.frombuffer(payload, dtype="<f4", count=2).astype(np.float32)
        if not -LARGEST <= low <= high <= LARGEST:
            raise PayloadError("uniform range {} .. {}, expected one within -1e38 .. 1e38".format(low, high))
        codes = bitpack.unpack(payload, int(np.prod(shape)), self.bits, start=8).reshape(shape)
        return {"codes": codes, "low": low.reshape(1), "high": high.reshape(1)}

    def dequantize(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        step = (codes["high"] - codes["low"]) / self.levels
        return np.asarray(codes["low"] + codes["codes"].astype(np.float32) * step)

    def active(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        # Code 0 stands for 0 only when `low` is 0: a feature that is cut before its ReLU has negative values too.
        half_step = (codes["high"] - codes["low"]) / (2 * self.levels)
        return np.asarray(np.abs(self.dequantize(codes, tables)) > half_step)

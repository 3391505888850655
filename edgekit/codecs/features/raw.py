"""raw: the feature as 32-bit floats, the uncompressed baseline (FP32)."""

from typing import Sequence, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.checks import finite_values
from edgekit.tensors import TensorSpec


class Raw(FeatureCodec):
    """n*C*h*w little-endian float32, row-major.

    >>> Raw().pack({"codes": np.array([[[[1.0]], [[-2.0]]]], dtype=np.float32)}).hex()
    '0000803f000000c0'
    """

    codec_id = "raw"

    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        return (TensorSpec("codes", "float32", feature.shape),)

    def formula_bits(self, feature: Sequence[int]) -> float:
        return 32.0 * float(np.prod(feature))

    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        return {"codes": feature}

    def pack(self, codes: Arrays) -> bytes:
        return codes["codes"].astype("<f4", copy=False).tobytes()

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        values = finite_values(payload, int(np.prod(shape)), "{} feature".format(self.codec_id), str(list(shape)))
        return {"codes": values.reshape(shape)}

    def dequantize(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        return codes["codes"]

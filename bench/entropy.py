"""What an entropy coder's own model says of codes, to compare with the bytes that it makes of them."""

from unittest import mock

import numpy as np

from edgekit.codecs.base import Arrays, FeatureStream
from edgekit.codecs.entropy import kernels
from edgekit.codecs.entropy.reference import rans
from edgekit.codecs.entropy.slots import PRECISION


def model_bits(stream: FeatureStream, codes: Arrays, images: np.ndarray | None = None) -> float:
    """-log2 of the probability of `codes` in the stream's tables, as the entropy coder is told it; 0 without one."""
    with kernels.using("numpy"), mock.patch.object(rans, "encode", wraps=rans.encode) as encode:
        stream.pack(codes, images)
    widths = [np.asarray(call.args[1], dtype=np.float64) for call in encode.call_args_list]
    return float(sum((PRECISION - np.log2(width)).sum() for width in widths))

"""Payload: the frames that one training step puts on the line, really coded, for a feature at hand."""

from typing import NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec, GradientCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.kmeans import kmeans
from edgekit.codecs.registry import gradient_codec
from edgekit.line import frame
from edgekit.line.frame import Message

#: Positions of feature maps, over all images, that codebooks are computed from.
POSITIONS = 1 << 13
#: What a server's reply says besides the gradient, in typical lengths.
REPLY = {"loss": 1.234567, "right": 16, "dev": 0.123456, "s": 0.123456}


class Payload(NamedTuple):
    """One step of one device. What travels is the same as between `edgekit run` and `edgekit serve`."""

    codec: FeatureCodec
    tables: Arrays
    #: (n,C,h,w), and its codes packed.
    shape: tuple[int, ...]
    packed_codes: bytes
    gradient_codec: GradientCodec
    packed_gradient: bytes
    #: Whole frames, labels and headers included; bytes.
    frame_up: int
    frame_down: int

    def decode(self) -> np.ndarray:
        """What a server makes of the codes: the feature (n,C,h,w) f32 in the network's order."""
        codes = self.codec.unpack(self.packed_codes, self.shape)
        order = self.codec.order(self.shape[1], self.tables)
        return self.codec.dequantize(codes, self.tables)[:, np.argsort(order)]


def payload(codec: FeatureCodec, tables: Arrays, feature: np.ndarray, classes: int, seed: int) -> Payload:
    """The messages for `feature` (n,C,h,w) f32, channels in the network's order, and a random gradient of its shape.

    The gradient is coded as `edgekit serve` does by default: not at all for raw features, else by `dct`, whose bytes
    are those of white noise here; real gradients took two thirds of that to about as much. Left out: codebooks that
    follow the features, a few percent of what goes up.
    """
    n, channels = feature.shape[:2]
    order = codec.order(channels, tables)
    codes = codec.quantize(feature[:, order], tables)
    labels = np.zeros(n, dtype="<u1" if classes <= 256 else "<u2").tobytes()
    packed = codec.pack(codes)
    up = frame.encode(Message("feature", 1, 1, {"n": n, "v": 1}, (labels, packed)))
    back = gradient_codec("raw" if codec.codec_id == "raw" else "dct", {})
    rng = np.random.default_rng(seed)
    gradient = back.pack(rng.standard_normal(feature.shape, dtype=np.float32), None, rng)
    down = frame.encode(Message("gradient", 1, 1, REPLY, (gradient,)))
    return Payload(codec, tables, feature.shape, packed, back, gradient, len(up), len(down))


def quick_tables(codec: FeatureCodec, feature: np.ndarray, seed: int) -> Arrays:
    """Tables that `codec` can code `feature` with: codebooks of some positions, channels grouped as they come.

    Grouping them by correlation, as the export does, takes seconds for the widest features; without it a coded
    feature is as large, and a few percent more of a gradient are sent.
    """
    some = feature[: max(2, POSITIONS // (feature.shape[2] * feature.shape[3]))]
    if not isinstance(codec, SGQ):
        return codec.calibrate(some, seed)
    rng = np.random.default_rng(seed)
    books = [kmeans(points, codec.words, rng) for points in codec.stripes(some)]
    tables = {"codebook": np.concatenate(books, axis=1), "order": np.arange(feature.shape[1])}
    return {**tables, "significance": np.ones(feature.shape[1], np.float32)} if codec.weighted else tables

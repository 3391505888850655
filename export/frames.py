"""Frames: what one training step puts on the line, really coded, for a feature at hand. Plans and rates count it."""

from typing import NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays, CodebookCodec, FeatureCodec, GradientCodec
from edgekit.codecs.kmeans import kmeans
from edgekit.codecs.registry import gradient_codec
from edgekit.line.labels import pack_labels
from edgekit.line.messages import Ack, Codebook, Feature, Gradient, Update, Weights, encode

#: Positions of feature maps, over all images, that codebooks are computed from.
POSITIONS = 1 << 13


class Frames(NamedTuple):
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


def feature_bytes(labels: np.ndarray, classes: int, codes: bytes, tables: int = 1) -> int:
    """Bytes of the frame of a batch's packed `codes` and `labels` (n,)."""
    return len(encode(Feature(1, 1, tables, len(labels), pack_labels(labels, classes), codes)))


def gradient_bytes(gradient: bytes) -> int:
    """Bytes of the frame of a packed `gradient`, the figures beside it being as long as they typically are."""
    return len(encode(Gradient(1, 1, 1.234567, 16, 0.123456, 0.123456, gradient, 0.0123456)))


def codebook_bytes(update: bytes) -> int:
    """Bytes of the frames of a codebook update, and of its acknowledgement."""
    return len(encode(Codebook(1, 1, update)) + encode(Ack()))


def update_bytes(update: bytes) -> int:
    """Bytes of the frame of a packed `update` of weights, in the middle of a training."""
    return len(encode(Update(1, 1, 1000, 10000, update, test=True)))


def weights_bytes(update: bytes) -> int:
    """Bytes of the frame of new weights, their change packed, without codebooks."""
    return len(encode(Weights(1, 1, update, b"")))


def frames(codec: FeatureCodec, tables: Arrays, feature: np.ndarray, classes: int, seed: int) -> Frames:
    """The frames for `feature` (n,C,h,w) f32, channels in the network's order, and a random gradient of its shape.

    The gradient is coded as `edgekit serve` does by default: not at all for raw features, else by `dct`, whose bytes
    are those of white noise here; real gradients took two thirds of that to about as much. Left out: codebooks that
    follow the features, a few percent of what goes up.
    """
    n, channels = feature.shape[:2]
    order = codec.order(channels, tables)
    packed = codec.pack(codec.quantize(feature[:, order], tables))
    back = gradient_codec("raw" if codec.codec_id == "raw" else "dct", {})
    rng = np.random.default_rng(seed)
    gradient = back.pack(rng.standard_normal(feature.shape, dtype=np.float32), None, rng)
    up, down = feature_bytes(np.zeros(n), classes, packed), gradient_bytes(gradient)
    return Frames(codec, tables, feature.shape, packed, back, gradient, up, down)


def quick_tables(codec: FeatureCodec, feature: np.ndarray, seed: int) -> Arrays:
    """Tables that `codec` can code `feature` with: codebooks of some positions, channels grouped as they come.

    Grouping them by correlation, as the export does, takes seconds for the widest features; without it a coded
    feature is as large, and a few percent more of a gradient are sent.
    """
    some = feature[: max(2, POSITIONS // (feature.shape[2] * feature.shape[3]))]
    if not isinstance(codec, CodebookCodec):
        return codec.calibrate(some, seed)
    rng = np.random.default_rng(seed)
    books = [kmeans(points, codec.words, rng) for points in codec.stripes(some)]
    tables = {"codebook": np.concatenate(books, axis=1), "order": np.arange(feature.shape[1])}
    # Of mean 1, as codecs that weigh channels have it.
    return {**tables, "significance": np.ones(feature.shape[1], np.float32)} if codec.needs_significance else tables

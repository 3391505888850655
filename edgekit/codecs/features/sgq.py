"""sgq: stripe-wise group quantisation (Zhou et al., NeurIPS 2022), vector quantisation with a codebook per group.

::

    feature (n,C,h,w) --order--> G groups of C/G channels
    stripe = the C/G values of a group at one position --> index of its nearest codeword, `bits` bits

Formula bits of a feature: G * bits * n * h * w. Codebooks are sent in messages of their own, when they have changed.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgekit.codecs import table_updates
from edgekit.codecs.base import Arrays, CodebookCodec, FeatureStream
from edgekit.codecs.entropy import bits as bitpack
from edgekit.codecs.entropy.context import ContextStream
from edgekit.codecs.grouping import GROUPINGS, channel_order
from edgekit.codecs.kmeans import kmeans
from edgekit.errors import ShapeError, UnknownName, UsageError
from edgekit.tensors import TensorSpec, check_all

#: In `active`, a codeword's value counts as zero below this share of the largest magnitude of its channel.
FLOOR = np.float32(0.1)
#: Smallest weight of a channel in the distance to a codeword, as a share of the mean weight.
LEAST = np.float32(0.01)
#: How a stream codes indices: "packed", `bits` bits each; "context", entropy coded (`edgekit.codecs.entropy`) with
#: probabilities given the neighbouring indices; "temporal", given also the indices that the same image had before.
CODINGS = ("packed", "context", "temporal")


class SGQ(CodebookCodec):
    """G groups of equally many channels, 2**bits codewords each.

    `grouping` is "spectral" (channels that move together), "significance" (as significant as each other) or
    "contiguous" (as the network has them). With `weighted`, errors in significant channels count more when
    the nearest codeword is chosen.

    Tables: "codebook" (2**bits, C) f32, columns in coded order, group g owning columns ``g*C/G : (g+1)*C/G``;
    "order" (C,) int64; with `weighted`, "significance" (C,) f32 in the network's order, of mean 1. Payload: n*G*h*w
    indices of `bits` bits, row-major (image, group, row, column).

    >>> SGQ(groups=2, bits=4).pack({"codes": np.array([[[[1]], [[15]]]], dtype=np.int32)}).hex()
    '1f'
    """

    codec_id = "sgq"

    def __init__(
        self,
        groups: int = 8,
        bits: int = 4,
        grouping: str = "spectral",
        weighted: bool = False,
        coding: str = "packed",
    ) -> None:
        if not (isinstance(groups, int) and isinstance(bits, int) and groups >= 1 and 1 <= bits <= 8):
            told = "{} takes at least 1 group and 1 to 8 bits, got {!r} and {!r}"
            raise UsageError(told.format(self.codec_id, groups, bits))
        if grouping not in GROUPINGS:
            raise UnknownName("grouping", str(grouping), GROUPINGS, "there are: {}".format(", ".join(GROUPINGS)))
        if not isinstance(weighted, bool):
            raise UsageError("weighted of sgq is True or False, got {!r}".format(weighted))
        if coding not in CODINGS:
            raise UnknownName("coding", str(coding), CODINGS, "there are: {}".format(", ".join(CODINGS)))
        self.groups = groups
        self.bits = bits
        self.coding = coding
        self.grouping = grouping
        self.weighted = weighted
        self.words = 2**bits

    @property
    def config(self) -> Dict[str, Any]:
        # What is as by default is left out: it was in no bundle before it could be chosen.
        chosen = {
            "grouping": (self.grouping, "spectral"),
            "weighted": (self.weighted, False),
            "coding": (self.coding, "packed"),
        }
        changed = {name: value for name, (value, default) in chosen.items() if value != default}
        return dict(groups=self.groups, bits=self.bits, **changed)

    @property
    def needs_significance(self) -> bool:
        return self.grouping == "significance" or self.weighted

    def check(self, channels: int) -> None:
        if channels % self.groups:
            divisors = [str(d) for d in range(1, channels + 1) if channels % d == 0]
            told = "{} with {} groups cannot code {} channels in equal groups: choose --groups from {}"
            raise UsageError(told.format(self.codec_id, self.groups, channels, ", ".join(divisors)))

    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        n, _, h, w = feature.shape
        return (TensorSpec("codes", "int32", (n, self.groups, h, w)),)

    def calibrate(self, features: np.ndarray, seed: int, significance: Optional[np.ndarray] = None) -> Arrays:
        """UsageError when this configuration needs a `significance` and none is given."""
        self.check(features.shape[1])
        if self.needs_significance and significance is None:
            raise UsageError("{!r} needs the significance of every channel: labelled calibration data".format(self))
        rng = np.random.default_rng(seed)
        tables = {"order": channel_order(self.grouping, features, self.groups, significance, rng)}
        if self.weighted and significance is not None:
            mean = max(float(significance.mean()), 1e-30)
            tables["significance"] = np.maximum(significance.astype(np.float32) / np.float32(mean), LEAST)
        return dict(tables, codebook=self.fit(features[:, tables["order"]], tables, rng))

    def fit(self, feature: np.ndarray, tables: Arrays, rng: np.random.Generator) -> np.ndarray:
        """(2**bits, C) codebook by k-means from `feature` (n,C,h,w), channels in the order of `tables`."""
        # Distances to weighted codewords are plain ones where each channel is stretched by the root of its weight.
        root = np.sqrt(self._weights(tables)) if self.weighted else np.ones((self.groups, 1), np.float32)
        return np.concatenate(
            [kmeans(points * r, self.words, rng) / r for points, r in zip(self.stripes(feature), root)], axis=1
        )

    def check_tables(self, channels: int, tables: Arrays) -> None:
        specs = [TensorSpec("codebook", "float32", (self.words, channels)), TensorSpec("order", "int64", (channels,))]
        if self.weighted:
            specs.append(TensorSpec("significance", "float32", (channels,)))
        check_all(specs, tables, "tables of {!r}".format(self))
        if not np.isfinite(tables["codebook"]).all() or sorted(tables["order"].tolist()) != list(range(channels)):
            raise ShapeError("tables of {!r}: codewords must be finite, the order a permutation".format(self))
        if self.weighted and not (np.isfinite(tables["significance"]) & (tables["significance"] > 0)).all():
            raise ShapeError("tables of {!r}: significance must be finite and above zero".format(self))

    def order(self, channels: int, tables: Arrays) -> np.ndarray:
        return tables["order"]

    def stripes(self, feature: np.ndarray) -> List[np.ndarray]:
        """Per group, the (n*h*w, C/G) stripes of `feature` (n,C,h,w), channels in coded order."""
        rows = feature.transpose(0, 2, 3, 1).reshape(-1, self.groups, feature.shape[1] // self.groups)
        return [rows[:, g] for g in range(self.groups)]

    def books(self, codebook: np.ndarray) -> np.ndarray:
        """(G, 2**bits, C/G) view of a table's codebook."""
        return codebook.reshape(self.words, self.groups, -1).transpose(1, 0, 2)

    def scoring(self, tables: Arrays) -> Tuple[np.ndarray, np.ndarray]:
        """Per group, (G, 2**bits, C/G) s*e and (G, 2**bits) sum of s*e*e/2: a stripe z scores bias - z.(s*e).

        s is 1, or the significance of each channel. The lowest score is the nearest codeword.
        """
        books = self.books(tables["codebook"])
        weighted = books * self._weights(tables)[:, None] if self.weighted else books
        return weighted, (weighted * books).sum(axis=2) / np.float32(2)

    def _weights(self, tables: Arrays) -> np.ndarray:
        """(G, C/G) significance, channels in coded order."""
        return np.asarray(tables["significance"][tables["order"]].reshape(self.groups, -1))

    def table_feeds(self, tables: Arrays) -> Arrays:
        """Floats all: boards take no integer inputs."""
        weighted, bias = self.scoring(tables)
        feeds = {
            "codebook_weight": np.ascontiguousarray(-weighted.reshape(self.groups * self.words, -1, 1, 1)),
            "codebook_bias": np.ascontiguousarray(bias.reshape(-1)),
        }
        if self.grouping != "contiguous":
            feeds["codebook_order"] = tables["order"].astype(np.float32)
            feeds["codebook_order_back"] = np.argsort(tables["order"]).astype(np.float32)
        return feeds

    def formula_bits(self, feature: Sequence[int]) -> float:
        return float(self.bits * self.groups * feature[1] * feature[2])

    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        n, _, h, w = feature.shape
        codes = [
            (bias - points @ weighted.T).argmin(axis=1)
            for points, weighted, bias in zip(self.stripes(feature), *self.scoring(tables))
        ]
        return {"codes": np.stack(codes).reshape(self.groups, n, h, w).transpose(1, 0, 2, 3).astype(np.int32)}

    def pack(self, codes: Arrays) -> bytes:
        return bitpack.pack(codes["codes"], self.bits)

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        n, _, h, w = shape
        codes = bitpack.unpack(payload, n * self.groups * h * w, self.bits)
        return {"codes": codes.reshape(n, self.groups, h, w)}

    def stream(self) -> FeatureStream:
        if self.coding == "packed":
            return super().stream()
        return ContextStream(self, self.groups, self.bits, self.coding == "temporal")

    def dequantize(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        return self._look_up(codes["codes"], tables["codebook"])

    def active(self, codes: Arrays, tables: Arrays) -> np.ndarray:
        size = np.abs(tables["codebook"])
        return self._look_up(codes["codes"], size > FLOOR * size.max(axis=0))

    def _look_up(self, codes: np.ndarray, table: np.ndarray) -> np.ndarray:
        n, _, h, w = codes.shape
        picked = self.books(table)[np.arange(self.groups)[:, None, None], codes]  # (n,G,h,w,C/G)
        return np.ascontiguousarray(picked.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w))

    def diff(self, sent: Arrays, tables: Arrays, tolerance: float) -> bytes:
        return table_updates.diff(self, sent, tables, tolerance)

    def patch(self, sent: Arrays, payload: bytes) -> Arrays:
        return table_updates.patch(self, sent, payload)

"""sgq: stripe-wise group quantisation (Zhou et al., NeurIPS 2022).

::

    feature (n,C,h,w) --order--> G groups of C/G channels
    stripe = the C/G values of a group at one position --> index of its nearest codeword, `bits` bits

Formula bits of a feature: G * bits * n * h * w. Codebooks travel on their own, when they moved.
"""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from edgekit.codecs import bits as bitpack
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.grouping import spectral_order
from edgekit.codecs.kmeans import kmeans
from edgekit.errors import PayloadError, ShapeError, UsageError
from edgekit.tensors import TensorSpec, check_all

#: A codeword's magnitude below this share of its channel's largest counts as zero in `active`.
FLOOR = np.float32(0.1)


class SGQ(FeatureCodec):
    """G groups of equally many channels, 2**bits codewords each.

    Tables: "codebook" (2**bits, C) f32, columns in coded order, group g owning columns ``g*C/G : (g+1)*C/G``;
    "order" (C,) int64. Payload: n*G*h*w indices of `bits` bits, row-major (image, group, row, column).

    >>> SGQ(groups=2, bits=4).pack({"codes": np.array([[[[1]], [[15]]]], dtype=np.int32)}).hex()
    '1f'
    """

    codec_id = "sgq"

    def __init__(self, groups: int = 8, bits: int = 4) -> None:
        if not (isinstance(groups, int) and isinstance(bits, int) and groups >= 1 and 1 <= bits <= 8):
            raise UsageError("sgq takes at least 1 group and 1 to 8 bits, got {!r} and {!r}".format(groups, bits))
        self.groups = groups
        self.bits = bits
        self.words = 2**bits

    @property
    def config(self) -> Dict[str, Any]:
        return {"groups": self.groups, "bits": self.bits}

    def check(self, channels: int) -> None:
        if channels % self.groups:
            divisors = [str(d) for d in range(1, channels + 1) if channels % d == 0]
            raise UsageError(
                "sgq with {} groups cannot code {} channels in equal groups: choose --groups from {}".format(
                    self.groups, channels, ", ".join(divisors)
                )
            )

    def code_specs(self, feature: TensorSpec) -> Tuple[TensorSpec, ...]:
        n, _, h, w = feature.shape
        return (TensorSpec("codes", "int32", (n, self.groups, h, w)),)

    def calibrate(self, features: np.ndarray, seed: int) -> Arrays:
        self.check(features.shape[1])
        rng = np.random.default_rng(seed)
        order = spectral_order(features, self.groups, rng)
        books = [kmeans(points, self.words, rng) for points in self.stripes(features[:, order])]
        return {"codebook": np.concatenate(books, axis=1), "order": order}

    def check_tables(self, channels: int, tables: Arrays) -> None:
        specs = TensorSpec("codebook", "float32", (self.words, channels)), TensorSpec("order", "int64", (channels,))
        check_all(specs, tables, "tables of {!r}".format(self))
        if not np.isfinite(tables["codebook"]).all() or sorted(tables["order"].tolist()) != list(range(channels)):
            raise ShapeError("tables of {!r}: codewords must be finite, the order a permutation".format(self))

    def order(self, channels: int, tables: Arrays) -> np.ndarray:
        return tables["order"]

    def stripes(self, feature: np.ndarray) -> List[np.ndarray]:
        """Per group, the (n*h*w, C/G) stripes of `feature` (n,C,h,w), channels in coded order."""
        rows = feature.transpose(0, 2, 3, 1).reshape(-1, self.groups, feature.shape[1] // self.groups)
        return [rows[:, g] for g in range(self.groups)]

    def books(self, codebook: np.ndarray) -> np.ndarray:
        """(G, 2**bits, C/G) view of a table's codebook."""
        return codebook.reshape(self.words, self.groups, -1).transpose(1, 0, 2)

    def table_feeds(self, tables: Arrays) -> Arrays:
        books = self.books(tables["codebook"]).reshape(self.groups * self.words, -1)
        return {
            "codebook_weight": np.ascontiguousarray(-books[:, :, None, None]),
            "codebook_bias": (books**2).sum(axis=1) / np.float32(2),
        }

    def formula_bits(self, feature: Sequence[int]) -> float:
        return float(self.bits * self.groups * feature[1] * feature[2])

    def quantize(self, feature: np.ndarray, tables: Arrays) -> Arrays:
        n, _, h, w = feature.shape
        codes = [
            ((book**2).sum(axis=1) / np.float32(2) - points @ book.T).argmin(axis=1)
            for points, book in zip(self.stripes(feature), self.books(tables["codebook"]))
        ]
        return {"codes": np.stack(codes).reshape(self.groups, n, h, w).transpose(1, 0, 2, 3).astype(np.int32)}

    def pack(self, codes: Arrays) -> bytes:
        return bitpack.pack(codes["codes"], self.bits)

    def unpack(self, payload: bytes, shape: Sequence[int]) -> Arrays:
        n, _, h, w = shape
        codes = bitpack.unpack(payload, n * self.groups * h * w, self.bits)
        return {"codes": codes.reshape(n, self.groups, h, w)}

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
        """The codewords that moved further than `tolerance` times their group's spread, as float16.

        One bit per codeword, group by group, then C/G float16 per codeword whose bit is set.
        """
        old, new = self.books(sent["codebook"]), self.books(tables["codebook"])
        spread = new.var(axis=1).sum(axis=1)[:, None]
        moved = ((new - old) ** 2).sum(axis=2) > tolerance**2 * spread
        if not moved.any():
            return b""
        values: bytes = np.clip(new[moved], -65504, 65504).astype("<f2").tobytes()
        return np.packbits(moved).tobytes() + values

    def patch(self, sent: Arrays, payload: bytes) -> Arrays:
        words = self.groups * self.words
        bitmap = (words + 7) // 8
        width = sent["codebook"].shape[1] // self.groups
        if len(payload) < bitmap:
            raise PayloadError(
                "codebook update of {} B, expected at least {}".format(len(payload), bitmap), len(payload)
            )
        flags = np.unpackbits(np.frombuffer(payload, dtype=np.uint8, count=bitmap))
        moved = flags[:words].astype(bool)
        expected = bitmap + 2 * width * int(moved.sum())
        if len(payload) != expected or flags[words:].any() or not moved.any():
            raise PayloadError(
                "codebook update of {} B that moves {} codewords, expected {} B for at least 1 of {}".format(
                    len(payload), int(flags.sum()), expected, words
                ),
                bitmap,
            )
        values = np.frombuffer(payload, dtype="<f2", offset=bitmap).astype(np.float32).reshape(-1, width)
        if not np.isfinite(values).all():
            raise PayloadError("codebook update holds values that are not finite", bitmap)
        books = self.books(sent["codebook"]).copy()
        books[moved.reshape(self.groups, self.words)] = values
        return dict(sent, codebook=np.ascontiguousarray(books.transpose(1, 0, 2).reshape(self.words, -1)))

"""OnlineCodebook: a device's SGQ codebook following its features while the front half learns."""

from typing import Dict

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.kmeans import accumulate

#: A codeword used less than this share of an even split is dead, and takes the place of a badly coded stripe.
DEAD = 0.02
#: One whose count has faded below this stays where it is: sums and counts are about to vanish in float32.
FADED = 1e-6


class OnlineCodebook:
    """Moving averages of per-codeword sums and counts (van den Oord et al., 2017, appendix A.1), with revival.

    `tables` are the ones in use, equal on both sides; `update` moves a private copy along, and `publish` returns
    the bytes that bring both sides to it.
    """

    def __init__(self, codec: SGQ, tables: Arrays, decay: float, tolerance: float, seed: int) -> None:
        self.codec = codec
        self.tables = tables
        self.version = 0
        self.decay = decay
        self.tolerance = tolerance
        self._rng = np.random.default_rng(seed)
        self._books = codec.books(tables["codebook"]).copy()
        self._counts = np.ones(self._books.shape[:2], dtype=np.float32)
        self._sums = self._books.copy()
        #: Per group, over the last batch: mean squared error over variance.
        self.distortion = np.zeros(codec.groups, dtype=np.float32)

    def update(self, feature: np.ndarray, codes: np.ndarray) -> None:
        """Follows one batch: `feature` (n,C,h,w) f32 in coded order and its `codes` (n,G,h,w) int32."""
        keep = np.float32(self.decay)
        flat = codes.transpose(1, 0, 2, 3).reshape(self.codec.groups, -1)
        in_use = self.codec.books(self.tables["codebook"])
        for g, points in enumerate(self.codec.stripes(feature)):
            points = np.ascontiguousarray(points)
            sums, counts = accumulate(points, flat[g], self.codec.words)
            scale = (1 - keep) * self.codec.words / len(points)
            self._sums[g] = keep * self._sums[g] + scale * sums
            self._counts[g] = keep * self._counts[g] + scale * counts
            error = ((points - in_use[g][flat[g]]) ** 2).sum(axis=1)
            self.distortion[g] = error.sum() / max(float(((points - points.mean(axis=0)) ** 2).sum()), 1e-12)
            dead = np.flatnonzero(self._counts[g] < DEAD)
            if len(dead) and 0 < error.sum() < np.inf:
                chosen = self._rng.choice(len(points), len(dead), p=error / error.sum())
                self._sums[g][dead], self._counts[g][dead] = points[chosen], 1
        used = self._counts > FADED
        self._books[used] = self._sums[used] / self._counts[used, None]

    def publish(self) -> bytes:
        """Bytes for the other side, empty when nothing moved enough; afterwards `tables` hold what they say."""
        book = self._books.transpose(1, 0, 2).reshape(self.codec.words, -1)
        payload = self.codec.diff(self.tables, dict(self.tables, codebook=book), self.tolerance)
        if payload:
            self.tables = self.codec.patch(self.tables, payload)
            self.version += 1
        return payload

    def health(self) -> Dict[str, float]:
        """Over the moving averages: mean perplexity of the codewords' use, dead ones, mean normalised distortion."""
        share = self._counts / self._counts.sum(axis=1, keepdims=True)
        entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
        return {
            "perplexity": float(np.exp(entropy).mean()),
            "dead_codewords": int((self._counts < DEAD).sum()),
            "distortion": float(self.distortion.mean()),
            "version": self.version,
        }

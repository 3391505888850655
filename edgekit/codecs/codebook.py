"""OnlineCodebook: a device's codebooks, which follow its features while the front half learns."""

from typing import Any, Dict, Optional

import numpy as np

from edgekit.codecs.base import Arrays, CodebookCodec
from edgekit.codecs.entropy.kernels import pick
from edgekit.codecs.entropy.native import codebooks as native
from edgekit.codecs.entropy.reference import codebooks as reference
from edgekit.codecs.grouping import channel_order, correlation, inside

#: A codeword used less than this share of an even split is dead, and takes the place of a badly coded stripe.
DEAD = 0.02
#: One whose count has faded below this stays where it is: sums and counts are about to vanish in float32.
FADED = 1e-6
#: What a device's moving averages keep of themselves at each batch, and how far a codeword's value may be off before it
#: is sent, see `edgekit.codecs.table_updates`.
DECAY, TOLERANCE = 0.9, 0.1
#: Nothing is sent before so many squared tolerances of the variance would be saved. Values that are within the
#: tolerance, evenly, are off by a third of its square.
WORTH = 0.4
#: A spectral grouping is replaced by one that has at least this many times its correlations inside groups.
GAIN = 1.01
#: What a state of `OnlineCodebook` has, besides its random generator.
_STATE = ("tables", "version", "regrouped", "distortion", "_order", "_books", "_counts", "_sums")


class OnlineCodebook:
    """Moving averages of per-codeword sums and counts (van den Oord et al., 2017, appendix A.1), with revival.

    `tables` are the ones in use, equal on both sides; `update` moves a private copy along, and `publish` returns
    the bytes that bring both sides to it.
    """

    def __init__(self, codec: CodebookCodec, tables: Arrays, decay: float, tolerance: float, seed: int) -> None:
        self.codec = codec
        self.tables = tables
        self.version = 0
        #: New orders so far.
        self.regrouped = 0
        self.decay = decay
        self.tolerance = tolerance
        self._rng = np.random.default_rng(seed)
        self._start(tables["order"], tables["codebook"])
        #: Per group, over the last batch: mean squared error over variance.
        self.distortion = np.zeros(codec.groups, dtype=np.float32)

    def _start(self, order: np.ndarray, codebook: np.ndarray) -> None:
        """Averages that hold one word's worth of each codeword."""
        self._order = order
        self._books = self.codec.books(codebook).copy()
        self._counts = np.ones(self._books.shape[:2], dtype=np.float32)
        self._sums = self._books.copy()

    def state(self) -> Dict[str, Any]:
        """Tables, averages and random draws, as a state (`edgekit.statefile`)."""
        own = {name: getattr(self, name) for name in _STATE}
        return dict(own, rng=self._rng.bit_generator.state)

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`."""
        for name in _STATE:
            setattr(self, name, state[name])
        self._rng.bit_generator.state = state["rng"]

    def update(self, feature: np.ndarray, codes: np.ndarray) -> None:
        """Follows one batch: `feature` (n,C,h,w) f32 in coded order and its `codes` (n,G,h,w) int32."""
        keep = np.float32(self.decay)
        in_use = self.codec.books(self.tables["codebook"])
        sums, counts, errors, spreads = pick(native.stripes, reference.stripes)(feature, codes, in_use)
        stripes = errors.shape[1]
        scale = np.float32((1 - keep) * self.codec.words / stripes)
        self._sums = keep * self._sums + scale * sums.astype(np.float32)
        self._counts = keep * self._counts + scale * counts.astype(np.float32)
        lost = errors.sum(axis=1)
        self.distortion = (lost / np.maximum(spreads, 1e-12)).astype(np.float32)
        for g in np.flatnonzero((self._counts < DEAD).any(axis=1) & (lost > 0) & (lost < np.inf)):
            dead = np.flatnonzero(self._counts[g] < DEAD)
            chosen = self._rng.choice(stripes, len(dead), p=errors[g] / lost[g])
            self._sums[g][dead], self._counts[g][dead] = self.codec.stripes(feature)[g][chosen], 1
        used = self._counts > FADED
        self._books[used] = self._sums[used] / self._counts[used, None]

    def publish(self) -> bytes:
        """Bytes for the other side, empty when nothing moved enough; afterwards `tables` hold what they say."""
        if self.behind <= WORTH * self.tolerance**2 and np.array_equal(self._order, self.tables["order"]):
            return b""
        book = self._books.transpose(1, 0, 2).reshape(self.codec.words, -1)
        payload = self.codec.diff(self.tables, dict(self.tables, codebook=book, order=self._order), self.tolerance)
        if payload:
            self.tables = self.codec.patch(self.tables, payload)
            self.version += 1
        return payload

    def adopt(self, update: bytes) -> None:
        """Takes the tables that the other side has made, `update` being the bytes of their `diff`; a new version."""
        self.tables = self.codec.patch(self.tables, update)
        self.version += 1
        self._start(self.tables["order"], self.tables["codebook"])

    @property
    def behind(self) -> float:
        """The share of the variance that is lost because `tables` are not the averages: the mean over groups.

        A codeword counts as often as it was used of late.
        """
        # Training that diverged is told elsewhere.
        with np.errstate(over="ignore", invalid="ignore"):
            apart = ((self._books - self.codec.books(self.tables["codebook"])) ** 2).sum(axis=2)
            lost = (self._counts * apart).sum(axis=1) / self._counts.sum(axis=1)
            return float((lost / np.maximum(self._books.var(axis=1).sum(axis=1), 1e-12)).mean())

    def regroup(self, feature: np.ndarray, significance: Optional[np.ndarray] = None) -> bool:
        """Whether recent features (n,C,h,w) f32 in coded order ask for another grouping, which `publish` then sends.

        It comes with codewords of its own, by k-means; `publish` before the next `update`. `significance` (C,) f32, in
        the network's order, is for codecs that group by it.
        """
        order = self.tables["order"]
        raw = feature[:, np.argsort(order)]
        new = channel_order(self.codec.grouping, raw, self.codec.groups, significance, self._rng)
        label, other = (self._labels(each) for each in (order, new))
        if np.array_equal(label, other):
            return False
        if self.codec.grouping == "spectral":
            affinity = np.abs(correlation(raw))
            np.fill_diagonal(affinity, 0)
            if inside(other, affinity) < GAIN * inside(label, affinity):
                return False
        self._start(new, self.codec.fit(raw[:, new], dict(self.tables, order=new), self._rng))
        self.regrouped += 1
        return True

    @property
    def missing(self) -> float:
        """The share of the variance that quantising took from the last batch, 0 to 1: the mean over groups."""
        # In a group that hardly varies the share has no bound; of one that is not finite all is missing.
        return float(np.fmin(self.distortion, 1).mean())

    def _labels(self, order: np.ndarray) -> np.ndarray:
        """(C,) first channel of each channel's group: equal for the same groups under other numbers."""
        groups = order.reshape(self.codec.groups, -1)
        labels = np.empty(len(order), dtype=np.int64)
        labels[groups] = groups.min(axis=1)[:, None]
        return labels

    def health(self) -> Dict[str, Any]:
        """Over the moving averages: mean perplexity of the codewords' use, dead ones, mean normalised distortion.

        "groups" has the same per group, and "usage", the share of codewords that are not dead.
        """
        share = self._counts / self._counts.sum(axis=1, keepdims=True)
        perplexity = np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum(axis=1))
        dead = (self._counts < DEAD).sum(axis=1)
        return {
            "perplexity": float(perplexity.mean()),
            "dead_codewords": int(dead.sum()),
            "distortion": float(self.distortion.mean()),
            "version": self.version,
            "regrouped": self.regrouped,
            "groups": {
                "usage": (1 - dead / self.codec.words).tolist(),
                "perplexity": perplexity.tolist(),
                "dead_codewords": dead.tolist(),
                "distortion": self.distortion.tolist(),
            },
        }

"""Usage: how the entries of a device's codebooks are used, from the codes that come."""

import numpy as np

#: Of a device's batches one in so many is looked at, and what the counts before keep of themselves then.
EVERY, KEPT = 16, 0.9
#: An entry used less than this share of an even split is dead, as it is to the device (`edgekit.codecs.codebook`).
DEAD = 0.02


class Usage:
    """Moving counts of the entries of each group."""

    def __init__(self) -> None:
        self._batches = 0
        self._counts: np.ndarray | None = None

    def see(self, codes: np.ndarray, words: int) -> None:
        """Takes note of a batch's `codes` (n,G,h,w), integers below `words`."""
        self._batches += 1
        if self._batches % EVERY != 1:
            return
        groups = codes.shape[1]
        rows = codes.astype(np.int64).transpose(1, 0, 2, 3).reshape(groups, -1)
        first = np.arange(groups)[:, None] * words
        counts = np.bincount((rows + first).ravel(), minlength=groups * words).reshape(groups, words)
        # Assigned at once: another thread may read it.
        self._counts = counts if self._counts is None else KEPT * self._counts + counts

    def told(self) -> dict[str, float] | None:
        """By name: "used", the share of entries that are not dead; "perplexity", how many entries, evenly used, would
        say as much. Means over the groups; None before any codes came.
        """
        if self._counts is None:
            return None
        share = self._counts / self._counts.sum(axis=1, keepdims=True)
        used = (share * share.shape[1] >= DEAD).mean()
        entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
        return {"used": float(used), "perplexity": float(np.exp(entropy).mean())}

"""Codebooks on a device: they follow the features, reach the engines, and are grouped anew.

::

    feature, codes --follow--> moving averages --publish--> bytes for the server, tables for the engines
    recent features, gradients --regroup--> a better order of channels, where there is one
"""

from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, CodebookCodec
from edgekit.codecs.codebook import OnlineCodebook
from edgekit.errors import ShapeError, UsageError
from edgekit.line.messages import MOST_MISSING
from edgekit.runtime.front import Forward, Front

#: Batches whose features, and gradients, a new grouping is found from.
RECENT = 8


class Codebooks:
    """The codebooks of `front` while it learns."""

    def __init__(self, front: Front, book: OnlineCodebook, regroups: bool) -> None:
        self._front = front
        self._book = book
        #: Feature and gradient of the latest batches, channels in coded order; none where nobody regroups.
        self._recent: "Deque[Tuple[np.ndarray, np.ndarray]]" = deque(maxlen=RECENT if regroups else 0)

    @property
    def version(self) -> int:
        """Version of the tables in use."""
        return self._book.version

    @property
    def missing(self) -> float:
        """Share of the variance that quantising took from the last batch, as a feature message tells it."""
        return min(round(self._book.missing, 2), MOST_MISSING)

    def health(self) -> Dict[str, Any]:
        """See `OnlineCodebook.health`."""
        return self._book.health()

    def state(self) -> Dict[str, Any]:
        """All of it, as a state (`edgekit.statefile`)."""
        return {"book": self._book.state(), "recent": list(self._recent)}

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`. The engines have its tables afterwards."""
        self._book.restore(state["book"])
        self._recent.clear()
        self._recent.extend((feature, gradient) for feature, gradient in state["recent"])
        self._front.set_tables(self._book.tables)

    def follow(self, forward: Forward, gradient: np.ndarray) -> None:
        """Moves the codebooks after the features of a batch that was learned from."""
        self._book.update(forward.feature, forward.codes["codes"])
        if self._recent.maxlen:
            # Copies: an engine may write its next outputs where the last ones are.
            self._recent.append((forward.feature.copy(), gradient))

    def publish(self) -> bytes:
        """Bytes that bring the server to the codebooks as they are now; b"" where they have not moved enough.

        The engines have them afterwards too.
        """
        update = self._book.publish()
        if update:
            self._front.set_tables(self._book.tables)
        return update

    def adopt(self, update: bytes) -> None:
        """Takes the mean of all devices' codebooks, as bytes from the server. The engines have it afterwards too."""
        self._book.adopt(update)
        self._front.set_tables(self._book.tables)

    def regroup(self) -> bool:
        """Whether the latest batches ask for other groups of channels, which `publish` then sends."""
        feature, gradient = (np.concatenate(arrays) for arrays in zip(*self._recent))
        significance = np.empty(feature.shape[1], dtype=np.float32)
        significance[self._front.tables["order"]] = (gradient**2).mean(axis=(0, 2, 3))
        self._recent.clear()
        return self._book.regroup(feature, significance)


def codebooks_of(front: Front, decay: float, tolerance: float, regroup_every: int, seed: int) -> Optional[Codebooks]:
    """The codebooks of `front`; None for a codec without any. UsageError when they cannot be regrouped as asked."""
    codec = front.codec
    if regroup_every and not (isinstance(codec, CodebookCodec) and front.can_reorder):
        raise UsageError(
            "--regroup-every {}: the order of channels in {} is for good: export it with --codec sgq and "
            "--grouping spectral or significance".format(regroup_every, front.origin)
        )
    if not isinstance(codec, CodebookCodec):
        return None
    return Codebooks(front, OnlineCodebook(codec, front.tables, decay, tolerance, seed), bool(regroup_every))


def take_tables(front: Front, tables: Arrays) -> None:
    """Gives `front` other tables than the bundle's. ShapeError when they are no tables of its codec."""
    if "order" not in front.tables:
        raise ShapeError("new tables for codec {!r}, which has none".format(front.codec))
    front.codec.check_tables(len(front.tables["order"]), tables)
    front.set_tables(tables)

"""The images of every device, and class-balanced subsets: the same on every machine.

Every device draws all shares by itself and takes its own. So the draws come from `RandomState`, whose stream is the
same in every version of numpy. That of `default_rng` may change, and then shares would overlap.
"""

import re
from typing import List, Optional, Tuple

import numpy as np

from edgekit.errors import UsageError

_DRAWS = 100
_ALPHA = (1e-3, 1e6)


def shares(labels: np.ndarray, n: int, scheme: str, seed: int) -> List[np.ndarray]:
    """`n` index arrays (int64, ascending, none empty) that together hold every index of `labels` (m,) int64 once.

    ``iid``: sizes differ by at most 1. ``dirichlet:ALPHA``: every class is divided in proportions drawn from a
    symmetric Dirichlet distribution (Yurochkin et al. 2019; Hsu et al. 2019 draw per device instead); the smaller
    ALPHA, the fewer devices hold most of a class. UsageError when no draw of 100 gives every device an image.
    """
    alpha = _alpha(scheme)
    if not 1 <= n <= len(labels):
        raise UsageError("{0} images among {1} devices: expected 1 to {0} devices".format(len(labels), n))
    rng = _rng(seed)
    if alpha is None:
        return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), n)]
    for _ in range(_DRAWS):
        owner = _owners(labels, n, alpha, rng)
        if np.bincount(owner, minlength=n).min():
            return [np.flatnonzero(owner == device) for device in range(n)]
    raise UsageError(
        "partition '{}' of {} images left one of {} devices without any in {} draws: "
        "take fewer devices, more images or a larger ALPHA".format(scheme, len(labels), n, _DRAWS)
    )


def _owners(labels: np.ndarray, n: int, alpha: float, rng: np.random.RandomState) -> np.ndarray:
    """(m,) int64: the device of every image."""
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # Gamma(a) is Gamma(a + 1) * U ** (1 / a): in logarithms nothing underflows to 0 / 0 when ALPHA is small.
        logs = np.log(rng.standard_gamma(alpha + 1, n)) + np.log1p(-rng.random_sample(n)) / alpha
        weights = np.exp(logs - logs.max())
        ends = np.cumsum(weights / weights.sum()) * len(members)
        owner[members] = np.searchsorted(ends[:-1].astype(np.int64), np.arange(len(members)), side="right")
    return owner


def _alpha(scheme: str) -> Optional[float]:
    if scheme == "iid":
        return None
    name, _, value = scheme.partition(":")
    try:
        alpha = float(value)
    except ValueError:
        alpha = -1.0
    if name != "dirichlet" or not _ALPHA[0] <= alpha <= _ALPHA[1]:
        raise UsageError(
            "partition '{}': expected iid or dirichlet:ALPHA with ALPHA from {:g} to {:g}, "
            "for example dirichlet:0.5".format(scheme, _ALPHA[0], _ALPHA[1])
        )
    return alpha


def parse_share(text: str) -> Tuple[int, int]:
    """(index, count) of ``INDEX/COUNT``; the first share is 0.

    >>> parse_share("0/2")
    (0, 2)
    """
    match = re.match(r"([0-9]{1,9})/([0-9]{1,9})\Z", text)
    if not match or not int(match.group(1)) < int(match.group(2)):
        raise UsageError("share '{}': expected INDEX/COUNT with INDEX below COUNT, for example 0/2".format(text))
    return int(match.group(1)), int(match.group(2))


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` indices into `labels` (ascending int64, all if there are fewer), drawn alike from every class.

    The numbers per class differ by at most 1, but for classes that have no more.
    """
    order = _rng(seed).permutation(len(labels))
    by_class = np.argsort(labels[order], kind="stable")
    grouped = labels[order][by_class]
    rank = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    # All firsts of their class, then all seconds, and so on; among equals in the order of the shuffle.
    chosen = order[by_class[np.lexsort((by_class, rank))[:count]]]
    return np.sort(chosen)


def _rng(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 1 << 32:
        raise UsageError("seed {}: expected 0 to {}".format(seed, (1 << 32) - 1))
    return np.random.RandomState(seed)

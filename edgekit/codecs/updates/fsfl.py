"""fsfl: weights in multiples of one step, of which only what passes thresholds is sent (Becking et al. 2022).

arXiv:2204.04424. Scales of filters, which that paper trains too, travel by a codec of their own
(`edgekit.federate.apart`).
"""

import math

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.updates import coding
from edgekit.codecs.updates.feedback import ErrorFeedback
from edgekit.codecs.updates.flat import Shapes, named, shapes_of, sizes_of
from edgekit.codecs.updates.top import count_of, largest
from edgekit.errors import UsageError

#: Largest magnitude of a level: what is beyond is cut off.
_MOST = 2**31 - 1


class FSFL(UpdateCodec):
    """The update as integers times a step: `step` for weights, `fine` for biases and norms.

    Weights are the arrays of 2 dimensions or more; a row of one is a filter or an output neuron. Of each of them

    - rows are dropped whose mean is, in magnitude, below `gamma` times the mean of these over all rows (Eq. 3);
    - values are dropped whose magnitude is below the larger of |m - d| and |m + d|, with m the mean of all its values
      and d `delta` times their standard deviation, and below half a step (Eq. 2);
    - or, with a `sparsity`, that share of its values is dropped instead, the smallest first.

    What is dropped is lost, as in the paper, unless `feedback` adds it to the next update (Eq. 5). For rounds whose
    averages are compressed too, the paper takes a step of 2.44e-4.

    The payload is the integers, see `edgekit.codecs.updates.coding`.

    >>> update = {"weight": np.float32([[0.5, -0.5], [-3, -0.1]]), "bias": np.float32([0.1, 0])}
    >>> codec = FSFL(step=0.25, fine=0.125, delta=0)
    >>> codec.unpack(codec.pack(update, np.random.default_rng(0)), {"bias": (2,), "weight": (2, 2)})["weight"]
    array([[ 0.,  0.],
           [-3.,  0.]], dtype=float32)
    """

    codec_id = "fsfl"

    def __init__(
        self, step: float = 4.88e-4, fine: float = 2.38e-6, delta: float = 1.0, gamma: float = 0.9,
        sparsity: float = 0.0, feedback: bool = False,
    ) -> None:  # fmt: skip
        for what, given in (("step", step), ("fine step", fine)):
            if isinstance(given, bool) or not (isinstance(given, (int, float)) and 1e-12 <= given <= 1e12):
                raise UsageError("fsfl takes a {} of 1e-12 to 1e12, got {!r}".format(what, given))
        for what, given in (("delta", delta), ("gamma", gamma)):
            if isinstance(given, bool) or not (isinstance(given, (int, float)) and 0 <= given <= 1000):
                raise UsageError("fsfl takes a {} of 0 to 1000, got {!r}".format(what, given))
        if isinstance(sparsity, bool) or not (isinstance(sparsity, (int, float)) and 0 <= sparsity < 1):
            raise UsageError("fsfl takes a sparsity from 0 (by delta) to below 1, got {!r}".format(sparsity))
        if not isinstance(feedback, bool):
            raise UsageError("fsfl takes feedback true or false, got {!r}".format(feedback))
        self.step = step
        self.fine = fine
        self.delta = delta
        self.gamma = gamma
        self.sparsity = sparsity
        self.feedback = feedback

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        self.check_update(update)
        levels = [np.zeros(0, dtype=np.int64)]
        for name in sorted(update):
            values = update[name].astype(np.float64)
            if values.ndim > 1 and values.size:
                values = self._sparse(values)
            multiples = np.rint(values.reshape(-1) / self._step(values.ndim))
            levels.append(np.clip(multiples, -_MOST, _MOST).astype(np.int64))
        return coding.encode(np.concatenate(levels), shapes_of(update))

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        levels = coding.decode(payload, 0, shapes)
        steps = np.array([self._step(len(shapes[name])) for name in sorted(shapes)], dtype=np.float64)
        return named((levels * np.repeat(steps, sizes_of(shapes))).astype(np.float32), shapes)

    def formula_bits(self, shapes: Shapes) -> float:
        """Where weights are normal values of mean 0: the entropy of the places of those kept, and their signs.

        The paper has no formula: it measures. Levels beyond 1 are not counted, other values are with 32 bits.
        """
        kept = 1 - self.sparsity if self.sparsity else math.erfc(self.delta / math.sqrt(2))
        each = {name: kept + _entropy(kept) if len(shape) > 1 else 32.0 for name, shape in shapes.items()}
        return sum(size * each[name] for name, size in zip(sorted(shapes), sizes_of(shapes)))

    def formula_bits_of(self, sent: Arrays) -> float:
        """A bit for each row, which says whether all of it is 0, and the entropy of the levels in the others."""
        bits = 0.0
        for array in sent.values():
            levels = np.rint(array.astype(np.float64) / self._step(array.ndim))
            rows = levels.reshape(len(levels) if array.ndim > 1 else 1, -1) if levels.size else levels.reshape(0, 1)
            filled = rows[rows.any(axis=1)]
            _, counts = np.unique(filled, return_counts=True)
            bits += len(rows) - float((counts * np.log2(counts / max(filled.size, 1))).sum())
        return bits

    def sender(self, learns: bool = True) -> UpdateSender:
        return ErrorFeedback(self) if self.feedback else UpdateSender(self)

    def _step(self, dimensions: int) -> float:
        return self.step if dimensions > 1 else self.fine

    def _sparse(self, weight: np.ndarray) -> np.ndarray:
        """`weight` (rows, ...) f64 with zeros where nothing is to be sent."""
        rows = weight.reshape(len(weight), -1)
        means = np.abs(rows.mean(axis=1))
        stays = means >= self.gamma * means.mean()
        kept = np.where(stays[:, None], rows, 0).reshape(-1)
        if self.sparsity:
            some = largest(kept, count_of(kept.size, 1 - self.sparsity))
        else:
            # The larger of |mean - delta * std| and |mean + delta * std|.
            threshold = abs(rows.mean()) + self.delta * rows.std()
            some = np.flatnonzero(np.abs(kept) >= max(threshold, self.step / 2))
        sparse = np.zeros(kept.size)
        sparse[some] = kept[some]
        return sparse.reshape(weight.shape)


def _entropy(share: float) -> float:
    """Bits of a choice that falls one way with the probability `share`."""
    return -sum(each * math.log2(each) for each in (share, 1 - share) if each)

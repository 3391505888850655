"""What a candidate of rate control costs and loses, on calibration images that its tables do not come from.

::

    features --one half--> tables, settled stream and codebook
             --other half--> coded as on the line, in batches: bytes, error, accuracy, the loss's gradient sent back
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from edgekit.codecs.base import Arrays
from edgekit.codecs.codebook import DECAY, TOLERANCE, OnlineCodebook
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.registry import gradient_codec
from edgekit.errors import UsageError
from edgekit.export.fold import is_fresh, with_batch_statistics
from edgekit.export.frames import codebook_bytes, feature_bytes, gradient_bytes

#: Dead zones of gradients, in root mean squares.
ZONES = (0.75, 1, 1.5, 2, 3, 4)
#: Positions that a candidate's codebooks come from.
POSITIONS = 1 << 13
#: Bytes of codebook updates in a batch of training, for each value of the codebooks: 0.022 to 0.035 over ten epochs of
#: VGG11-thin and MobileNet-V1 on digits, from 1 group of 6 bits to 8 of 8. Counted where standing still takes less.
MOVING = 0.03
#: Bytes of the mean of all devices' codebooks, which comes down with every round, for each of their values: 1.7 to 2.2.
MERGING = 2.0


class Uplink(NamedTuple):
    """A feature codec. Bytes are per image and of whole frames, labels and headers included."""

    groups: int
    bits: int
    bytes: float
    #: Codebook updates and their acknowledgements, while learning, and codebooks that come down with rounds.
    update_bytes: float
    #: ``||feature - decoded|| / ||feature||``.
    error: float
    #: Percent, after decoding; None for fresh weights.
    accuracy: float | None

    @property
    def total(self) -> float:
        """Bytes, updates included."""
        return self.bytes + self.update_bytes


class Downlink(NamedTuple):
    """A gradient policy, with bytes as above and the mean of ``||gradient - what arrives|| / ||gradient||``."""

    policy: str
    zone: float
    bytes: float
    deviation: float


class Coded(NamedTuple):
    """A batch on the line."""

    codec: SGQ
    codes: Arrays
    tables: Arrays

    def feature(self) -> torch.Tensor:
        """(n,C,h,w) f32 as decoded, in the network's order."""
        decoded = self.codec.dequantize(self.codes, self.tables)
        return torch.from_numpy(np.ascontiguousarray(decoded[:, np.argsort(self.tables["order"])]))


class Bench:
    """Calibration data in two halves, and what is measured with them.

    `merged`: rounds that bring a device the mean of all codebooks, for each image that it trains on.
    """

    def __init__(
        self,
        batch: int,
        front: nn.Module,
        back: nn.Module,
        features: torch.Tensor,
        labels: np.ndarray | None,
        significance: np.ndarray | None,
        seed: int,
        merged: float = 0.0,
    ) -> None:
        half = len(features) // 2
        if labels is None or half < batch:
            raise UsageError(
                f"{len(features)} calibration images{'' if labels is not None else ' without labels'}: rates are "
                f"measured with at least {2 * batch} labelled ones, two batches: raise --calibration"
            )
        order = np.random.default_rng(seed).permutation(len(features))
        second = order[half : half + half // batch * batch]
        self.batch, self.seed = batch, seed
        self.first = features.detach().numpy()[order[:half]]
        self.second = features.detach().numpy()[second]
        self.labels = labels.astype(np.int64)[second]
        self.classes = int(labels.max()) + 1
        self.significance = significance
        self.merged = merged
        self.trained = not (is_fresh(front) or is_fresh(back))
        self.learning, self.deployed = with_batch_statistics(back), back.eval()
        # As many positions as `POSITIONS`, each an image of 1x1: grouping and k-means want no more.
        points = self.first.transpose(0, 2, 3, 1).reshape(-1, features.shape[1])
        some = np.random.default_rng(seed).permutation(len(points))[:POSITIONS]
        self.points = np.ascontiguousarray(points[some])[:, :, None, None]
        self.coded: dict[Uplink, list[Coded]] = {}

    def batches(self, array: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(array) - self.batch + 1, self.batch):
            yield array[start : start + self.batch]

    def uplink(self, codec: SGQ) -> Uplink:
        """Features of both halves through one line, the second one counted."""
        tables = codec.calibrate(self.points, self.seed, self.significance)
        stream, book = codec.stream(), OnlineCodebook(codec, tables, DECAY, TOLERANCE, self.seed)
        for part in self.batches(self.first):
            codes = self._code(codec, part, book)
            stream.update(codes)
            book.publish()
        sent, updates, right, apart = 0, 0, 0, 0.0
        coded: list[Coded] = []
        for part, labels in zip(self.batches(self.second), self.batches(self.labels), strict=True):
            tables = book.tables
            codes = self._code(codec, part, book)
            coded.append(Coded(codec, codes, tables))
            # No image again, as in a first epoch, and two bytes for its number: a memory saves later on.
            images = np.arange(self.batch) + max(256, self.batch) * len(coded)
            sent += feature_bytes(labels, self.classes, stream.pack(codes, images), book.version)
            stream.update(codes, images)
            payload = book.publish()
            if payload:
                updates += codebook_bytes(payload)
            decoded = coded[-1].feature()
            apart += float(((part - decoded.numpy()) ** 2).sum())
            right += self._right(decoded, labels)
        n = len(self.second)
        moved = max(updates / n, MOVING * tables["codebook"].size / self.batch)
        moved += MERGING * self.merged * tables["codebook"].size
        error = (apart / max(float((self.second**2).sum()), 1e-30)) ** 0.5
        accuracy = 100 * right / n if self.trained else None
        measured = Uplink(codec.groups, codec.bits, sent / n, moved, error, accuracy)
        self.coded[measured] = coded
        return measured

    def _code(self, codec: SGQ, feature: np.ndarray, book: OnlineCodebook) -> Arrays:
        ordered = np.ascontiguousarray(feature[:, book.tables["order"]])
        codes = codec.quantize(ordered, book.tables)
        book.update(ordered, codes["codes"])
        return codes

    def accuracy(self) -> float | None:
        """Percent of the second half classified right without a codec; None for fresh weights."""
        if not self.trained:
            return None
        pairs = zip(self.batches(self.second), self.batches(self.labels), strict=True)
        return 100 * sum(self._right(torch.from_numpy(part), labels) for part, labels in pairs) / len(self.second)

    def _right(self, feature: torch.Tensor, labels: np.ndarray) -> int:
        with torch.no_grad():
            # A copy: the back half may overwrite what it is given.
            return int((self.deployed(feature.clone()).argmax(dim=1).numpy() == labels).sum())

    def downlinks(self, uplink: Uplink, zones: Sequence[float] = ZONES) -> list[Downlink]:
        """The loss's gradient at the decoded feature, by each of `zones`."""
        codecs = {zone: gradient_codec("dct", {"zone": zone}) for zone in zones}
        sent, apart = dict.fromkeys(codecs, 0), dict.fromkeys(codecs, 0.0)
        batches = len(self.coded[uplink])
        for i, (each, labels) in enumerate(zip(self.coded[uplink], self.batches(self.labels), strict=True)):
            leaf = each.feature().requires_grad_()
            loss = cross_entropy(self.learning(leaf.clone()), torch.from_numpy(labels))
            (at_cut,) = torch.autograd.grad(loss, leaf)
            gradient = np.ascontiguousarray(at_cut.numpy()[:, each.tables["order"]])
            for zone, codec in codecs.items():
                payload = codec.pack(gradient, None, np.random.default_rng((self.seed, i)))
                sent[zone] += gradient_bytes(payload)
                apart[zone] += deviation(gradient, codec.unpack(payload, gradient.shape, None)) / batches
        n = len(self.second)
        return [Downlink(f"dct:zone={zone:g}", zone, sent[zone] / n, apart[zone]) for zone in codecs]


def deviation(exact: np.ndarray, arrives: np.ndarray) -> float:
    """``||exact - arrives|| / ||exact||``."""
    return float(np.linalg.norm(exact - arrives) / max(float(np.linalg.norm(exact)), 1e-30))

"""The line in one process: the same codecs, streams, codebooks, calibrator and frames, with PyTorch in the place of
the exported graphs, for runs that are too long for the processes. `bench/equal.py` compares the two.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from bfloat16 import bfloat16, precision
from torch.nn.functional import cross_entropy

from edgekit.codecs.codebook import OnlineCodebook
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.registry import feature_codec
from edgekit.data import images
from edgekit.data.base import Dataset
from edgekit.data.partition import stratified
from edgekit.export.fold import with_batch_statistics
from edgekit.export.models.registry import build, default_cut
from edgekit.export.named import default_shape
from edgekit.export.significance import significance
from edgekit.export.split import split
from edgekit.line import frame
from edgekit.line.frame import Message
from edgekit.line.meter import Meter
from edgekit.runtime.edge import RECENT
from edgekit.schedule import learning_rate
from edgekit.server.calibrate import calibrator
from edgekit.server.decode import decode, fill, filled, to_network_order

CPU = torch.device("cpu")
#: At every so many batches what the server decodes is compared with what the device coded, and else taken from it:
#: decoding would be about a sixth of a thin network's step.
DECODED = 16


class Plan(NamedTuple):
    """One run. `codec` and `config` are a feature codec's, `gradient` a calibrator's policy; counts are images."""

    model: str
    cut: str | None
    codec: str
    config: dict[str, Any]
    gradient: str
    seed: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    #: Random crops of the image padded by 4 pixels, and flips.
    augment: bool
    #: Networks compute in bfloat16 but for depthwise convolutions; what crosses the cut, weights and optimizers do not.
    mixed: bool
    calibration: int = 256
    #: Every so many epochs the channels are grouped anew; 0 never.
    regroup: int = 0
    #: False: the front half stays as drawn, for a floor.
    front: bool = True
    #: How slowly codewords move, and how far, of their group's spread, before they are sent again.
    decay: float = 0.9
    tolerance: float = 0.1
    #: Epochs from one evaluation to the next; the last is always evaluated.
    every: int = 2
    #: A control for filling, whatever the codec: noise beside what arrives in the ratio that filling would have, were
    #: this share of the variance missing. A feature that lacks nothing then varies 1 / (1 - share) times as much.
    noise: float = 0.0


class Trainer:
    """Trains one plan on the training images `share` of `dataset`; `on_epoch` sees each epoch's line."""

    def __init__(
        self, plan: Plan, dataset: Dataset, share: np.ndarray, on_epoch: Callable[[dict[str, Any]], None]
    ) -> None:
        self.plan = plan
        self.share = share
        self.on_epoch = on_epoch
        shape = default_shape(dataset)
        self.data = images.fit(dataset, shape)
        model = build(plan.model, shape, len(dataset.classes), plan.seed)
        cut = plan.cut or default_cut(plan.model)
        assert cut is not None
        front, back = split(model, cut)
        self.front, self.back = front.train(), back.train()
        chosen = stratified(dataset.train_labels, min(plan.calibration, len(dataset.train_labels)), plan.seed)
        codec = feature_codec(plan.codec, plan.config)
        with torch.no_grad():
            features = with_batch_statistics(self.front)(self._tensor(self.data.train_images[chosen])).numpy()
        codec.check(features.shape[1])
        self.shape = features.shape[1:]
        matters = None
        if codec.needs_significance:
            labels = dataset.train_labels[chosen]
            matters = significance("gradient", self.back, torch.from_numpy(features), labels, plan.seed)
        self.codec, self.tables = codec, codec.calibrate(features, plan.seed, matters)
        for half in (self.front, self.back):
            half.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if plan.mixed:
            bfloat16(self.front)
            bfloat16(self.back)
        self.device_end, self.server_end = codec.stream(), codec.stream()
        self.codebook = (
            OnlineCodebook(codec, self.tables, plan.decay, plan.tolerance, plan.seed)
            if isinstance(codec, SGQ)
            else None
        )
        self.calibrator = calibrator(plan.gradient, plan.seed)
        self.meter = Meter()
        self.optimizers = [
            torch.optim.SGD(half.parameters(), plan.lr, momentum=0.9, weight_decay=plan.weight_decay)
            for half in (self.front, self.back)
        ]
        self._rng = np.random.default_rng(plan.seed)
        self._crops = np.random.default_rng((plan.seed, 1))
        torch.manual_seed(plan.seed)
        self._step = self._decode_at = 0
        self._recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=RECENT)
        self.losses: list[float] = []
        self.deviations: list[float] = []

    def run(self) -> list[dict[str, Any]]:
        """The epochs' lines."""
        plan, lines = self.plan, []
        n = len(self.share)
        steps = n // plan.batch
        for epoch in range(1, plan.epochs + 1):
            start, right = time.perf_counter(), 0
            self.losses.clear()
            self.deviations.clear()
            for chosen in self._batches(n, steps):
                right += self._train(chosen, steps * plan.epochs)
            if self.codebook and plan.regroup and epoch % plan.regroup == 0 and epoch < plan.epochs:
                self._regroup()
            seconds = time.perf_counter() - start
            done = epoch * steps * plan.batch
            line = {
                "epoch": epoch,
                "images": done,
                "loss": float(np.mean(self.losses)),
                "train_accuracy": 100.0 * right / (steps * plan.batch),
                "deviation": float(np.mean(self.deviations)),
                "bytes_up_per_image": self.meter.training_bytes("up") / done,
                "bytes_down_per_image": self.meter.training_bytes("down") / done,
                "bytes": self.meter.by_kind(),
                "images_per_s": steps * plan.batch / seconds,
            }
            if self.codebook:
                line["codebook"] = {
                    key: value for key, value in self.codebook.health().items() if isinstance(value, (int, float))
                }
            if epoch % plan.every == 0 or epoch == plan.epochs:
                line["accuracy"], line["test_loss"] = self.evaluate()
            lines.append(line)
            self.on_epoch(line)
        return lines

    def _train(self, chosen: np.ndarray, steps: int) -> int:
        plan, step = self.plan, self._step
        labels = self.data.train_labels[chosen]
        picked = self.data.train_images[chosen]
        image = self._tensor(_augmented(picked, self._crops) if plan.augment else picked)
        with precision(plan.mixed):
            output = self.front(image)
        order = self.codec.order(self.shape[0], self.tables)
        feature = output.detach().float().numpy()[:, order]
        feature = np.ascontiguousarray(feature)
        codes = dict(self.codec.quantize(feature, self.tables), images=chosen)
        payload = self.device_end.pack(codes)
        header = self.codebook.header if self.codebook else {"v": 0}
        parts = (labels.astype("u1").tobytes(), payload)
        self._count("up", Message("feature", 1, step, dict(header, n=len(labels)), parts))
        # The server's side.
        arrived = codes
        if step >= self._decode_at:
            arrived = self.server_end.unpack(payload, feature.shape)
            self._decode_at = step + DECODED
            theirs, ours = (self.codec.dequantize(each, self.tables) for each in (arrived, codes))
            assert np.array_equal(theirs, ours)
            assert np.array_equal(arrived.get("images", chosen), chosen)
        leaf = decode(self.codec, arrived, self.tables, CPU)
        missing = plan.noise or header.get("d", 0)
        if missing and filled(step, steps):
            leaf = fill(leaf, missing, (plan.seed, 1, step))
        leaf.requires_grad_()
        coded = to_network_order(leaf, order).contiguous(memory_format=torch.channels_last)
        with precision(plan.mixed):
            logits = self.back(coded).float()
        target = torch.from_numpy(labels)
        loss = cross_entropy(logits, target)
        self._rate(learning_rate("cosine", plan.lr, step, steps))
        self.optimizers[1].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[1].step()
        assert leaf.grad is not None
        gradient = leaf.grad.numpy()
        active = self.codec.active(arrived, self.tables) if self.calibrator.masked else None
        reply, deviation = self.calibrator.send(gradient, active, 1, step)
        self.server_end.update(arrived)
        right = int((logits.argmax(1) == target).sum())
        header = {"loss": round(loss.item(), 6), "right": right, "dev": round(deviation, 6), "s": 0.012345}
        self._count("down", Message("gradient", 1, step, header, (reply,)))
        # The device again.
        self.device_end.update(codes)
        given = self.calibrator.codec.unpack(reply, gradient.shape, active)
        if plan.front:
            back = given[:, np.argsort(order)]
            self.optimizers[0].zero_grad()
            output.backward(torch.from_numpy(np.ascontiguousarray(back)).to(output.dtype))
            self.optimizers[0].step()
        if self.codebook:
            self.codebook.update(feature, codes["codes"])
            self._publish()
            if plan.regroup:
                self._recent.append((feature, given))
        self.losses.append(loss.item())
        self.deviations.append(deviation)
        self._step += 1
        return right

    def _regroup(self) -> None:
        assert self.codebook is not None
        feature, gradient = (np.concatenate(arrays) for arrays in zip(*self._recent, strict=True))
        matters = np.empty(feature.shape[1], dtype=np.float32)
        matters[self.tables["order"]] = (gradient**2).mean(axis=(0, 2, 3))
        self._recent.clear()
        if self.codebook.regroup(feature, matters):
            self._publish()
            self.device_end.reset()
            self._decode_at = self._step

    def _publish(self) -> None:
        assert self.codebook is not None
        update = self.codebook.publish()
        if update:
            self.tables = self.codebook.tables
            self._count("up", Message("codebook", 1, self.codebook.version, {}, (update,)))
            self._count("down", Message("ack", 1, self.codebook.version))

    def evaluate(self) -> tuple[float, float]:
        """Accuracy in percent and mean loss over the whole test set."""
        self.front.eval()
        self.back.eval()
        right, loss, n = 0, 0.0, len(self.data.test_labels)
        order = self.codec.order(self.shape[0], self.tables)
        with torch.no_grad():
            for start in range(0, n, 250):
                labels = torch.from_numpy(self.data.test_labels[start : start + 250])
                with precision(self.plan.mixed):
                    output = self.front(self._tensor(self.data.test_images[start : start + 250]))
                feature = np.ascontiguousarray(output.float().numpy()[:, order])
                leaf = decode(self.codec, self.codec.quantize(feature, self.tables), self.tables, CPU)
                coded = to_network_order(leaf, order).contiguous(memory_format=torch.channels_last)
                with precision(self.plan.mixed):
                    logits = self.back(coded).float()
                loss += cross_entropy(logits, labels, reduction="sum").item()
                right += int((logits.argmax(1) == labels).sum())
        self.front.train()
        self.back.train()
        return 100.0 * right / n, loss / n

    def _batches(self, n: int, steps: int) -> Iterator[np.ndarray]:
        order = self.share[self._rng.permutation(n)]
        for i in range(steps):
            yield order[i * self.plan.batch : (i + 1) * self.plan.batch]

    def _tensor(self, batch: np.ndarray) -> torch.Tensor:
        mean, std = (np.array(v, dtype=np.float32).reshape(-1, 1, 1) for v in (self.data.mean, self.data.std))
        scaled = torch.from_numpy((batch.astype(np.float32) * np.float32(1 / 255) - mean) / std)
        return scaled.contiguous(memory_format=torch.channels_last)

    def _rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _count(self, direction: str, message: Message) -> None:
        self.meter.count(direction, message.kind, len(frame.encode(message)))


def _augmented(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`batch` (n,C,H,W) uint8, each image flipped or not, and cut out of itself padded by 4 pixels."""
    n, height, width = len(batch), *batch.shape[2:]
    padded = np.pad(batch, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    down, right, flip = rng.integers(0, 9, n), rng.integers(0, 9, n), rng.random(n) < 0.5
    cut = np.empty_like(batch)
    for i in range(n):
        window = padded[i, :, down[i] : down[i] + height, right[i] : right[i] + width]
        cut[i] = window[:, :, ::-1] if flip[i] else window
    return cut

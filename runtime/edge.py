"""The device's loop: read, encode, send, receive, learn, refresh; and evaluate what is deployed."""

import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from edgekit import tensorfile
from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.codecs.codebook import DECAY, TOLERANCE, OnlineCodebook
from edgekit.codecs.features.sgq import SGQ
from edgekit.codecs.registry import gradient_codec
from edgekit.errors import PayloadError, UsageError
from edgekit.line import frame
from edgekit.line.frame import Message
from edgekit.runtime.learn import Forward, FrontHalf
from edgekit.runtime.optim import optimizer
from edgekit.runtime.transport import Transport
from edgekit.schedule import check_schedule, learning_rate
from edgekit.tensorfile import make_folder

Event = Dict[str, Any]


class Images(NamedTuple):
    """One split: images (n,C,H,W) uint8 in the model's input shape, labels (n,) int64."""

    images: np.ndarray
    labels: np.ndarray


class Options(NamedTuple):
    """How one device trains. Counts are images, steps and epochs; `seed` decides the order of the images."""

    name: str
    epochs: int = 10
    batch: int = 32
    in_flight: int = 1
    seed: int = 0
    codebook_decay: float = DECAY
    codebook_tolerance: float = TOLERANCE
    #: Epochs between new groupings of the channels, 0 for never.
    regroup_every: int = 0
    out: Optional[str] = None


#: Batches whose features, and gradients, a new grouping is found from.
RECENT = 8


class InFlight(NamedTuple):
    """A batch whose gradient has not come back yet."""

    forward: Forward
    tables: Arrays
    step: int
    #: Codebook updates sent since the batch before, whose acknowledgements come first.
    acks: int
    #: When its forward pass began, by `time.perf_counter`, and how often the weights had moved by then.
    began: float
    updates: int


class Device:
    """One device: a front half, its share of the training images, and the line to the server."""

    def __init__(
        self,
        bundle: Bundle,
        front: FrontHalf,
        transport: Transport,
        options: Options,
        on_event: Callable[[Event], None],
    ) -> None:
        self.bundle = bundle
        self.front = front
        self.transport = transport
        self.meter = transport.meter
        self.options = options
        self._on_event = on_event
        self._rng = np.random.default_rng(options.seed)
        self._label_dtype = "<u1" if bundle.classes <= 256 else "<u2"
        self._codebook: Optional[OnlineCodebook] = None
        if isinstance(bundle.codec, SGQ):
            self._codebook = OnlineCodebook(
                bundle.codec, front.tables, options.codebook_decay, options.codebook_tolerance, options.seed
            )
        if options.regroup_every and (self._codebook is None or not front.can_reorder):
            raise UsageError(
                "--regroup-every {}: the order of channels in {} is for good: export it with --codec sgq and "
                "--grouping spectral or significance".format(options.regroup_every, bundle.path)
            )
        #: Feature and gradient of the latest batches, channels in coded order.
        self._recent: "Deque[Tuple[np.ndarray, np.ndarray]]" = deque(maxlen=RECENT if options.regroup_every else 0)
        self._acks = 0
        self._step = 0
        self._images = 0
        self._train_s = 0.0
        self._deviation = 0.0
        #: Weight updates so far, and the sum over batches of those between forward pass and gradient.
        self._updates = 0
        self.staleness = 0

    def train(self, train: Images, test: Images) -> Event:
        """Trains for the planned epochs, evaluating after each; returns the "done" event."""
        options = self.options
        steps = self.steps_per_epoch(train)
        if options.out is not None:
            make_folder(options.out)
        self.hello(steps * options.epochs)
        self._on_event(self._event("connected", 0, 0.0))
        accuracy, loss = 0.0, 0.0
        for epoch in range(1, options.epochs + 1):
            start = time.perf_counter()
            loss, right = self._epoch(train, epoch, steps)
            if options.regroup_every and epoch % options.regroup_every == 0 and epoch < options.epochs:
                self._regroup()
            elapsed = time.perf_counter() - start
            self._train_s += elapsed
            accuracy, test_loss = self.evaluate(test)
            self._save()
            event = self._event("epoch", epoch, loss)
            event["train_accuracy"] = 100.0 * right / (steps * options.batch)
            event.update(accuracy=accuracy, test_loss=test_loss, images_per_s=steps * options.batch / elapsed)
            if self._codebook:
                event["codebook"] = self._codebook.health()
            self._on_event(event)
        self.bye()
        done = self._event("done", options.epochs, loss)
        done.update(
            accuracy=accuracy, train_s=self._train_s, bytes=self.meter.by_kind(), seconds=dict(self.meter.seconds)
        )
        if self._codebook:
            done["codebook"] = self._codebook.health()
        self._on_event(done)
        return done

    def evaluate(self, test: Images) -> Tuple[float, float]:
        """Accuracy in percent and mean loss of the deployed pipeline over all of `test`."""
        self._expect_acks(self._acks)
        self._acks = 0
        right, loss = 0, 0.0
        waiting: Deque[int] = deque()
        static = self.bundle.graphs["front"].inputs[0].shape[0]
        size = self.options.batch if static < 1 else min(self.options.batch, static)
        for start in range(0, len(test.labels) + 2 * size, size):
            chosen = slice(start, start + size)
            labels = test.labels[chosen]
            if len(labels):
                with self.meter.timed("evaluate"):
                    codes = self.front.encode(normalise(self.bundle, test.images[chosen]))
                self._send_codes("evaluate", start // size, labels, codes, "evaluate")
                waiting.append(len(labels))
            if len(waiting) > 1 or (waiting and not len(labels)):
                result = self.transport.expect("result")
                sent = waiting.popleft()
                right += _count(result, "right", sent)
                loss += frame.field(result, "loss", float) * sent
        return 100.0 * right / len(test.labels), loss / len(test.labels)

    def steps_per_epoch(self, train: Images) -> int:
        """Whole batches in `train`; UsageError for options that cannot be trained with."""
        options = self.options
        for name, least in (("epochs", 1), ("in_flight", 1), ("regroup_every", 0)):
            if getattr(options, name) < least:
                raise UsageError("{} of {}: expected at least {}".format(name, getattr(options, name), least))
        steps = len(train.labels) // max(options.batch, 1)
        if not steps or options.batch < 2:
            raise UsageError(
                "{} training images in batches of {}: need a batch of at least 2 and at least one whole batch".format(
                    len(train.labels), options.batch
                )
            )
        return steps

    def hello(self, steps: int) -> None:
        """Starts a session in which `steps` batches are planned."""
        # A session of its own: both ends of its line start anew.
        self._stream = self.bundle.codec.stream()
        most = self._stream.in_flight
        if most is not None and self.options.in_flight > most:
            raise UsageError(
                "{} batches in flight: codec {!r} takes at most {}".format(
                    self.options.in_flight, self.bundle.codec, most
                )
            )
        header = {"bundle": self.bundle.digest, "device": self.options.name, "steps": steps}
        self.transport.send(Message("hello", header=header))
        welcome = self.transport.expect("welcome")
        gradient, opt = frame.field(welcome, "gradient", dict), frame.field(welcome, "optimizer", dict)
        self._session = welcome.session
        self._steps = steps
        self._gradient_codec = gradient_codec(str(gradient.get("id")), gradient.get("config") or {})
        self._masked = frame.field(welcome, "masked", bool)
        self._schedule = frame.field(welcome, "schedule", str)
        check_schedule(self._schedule)
        fields = Message("welcome", header=opt)
        self._learning_rate = frame.field(fields, "lr", float)
        config = {name: frame.field(fields, name, float) for name in ("momentum", "weight_decay")}
        self._optimizer = optimizer(frame.field(fields, "name", str), config)

    def bye(self) -> None:
        """Ends the session."""
        self._expect_acks(self._acks)
        self._acks = 0
        self.transport.send(Message("bye", self._session))
        self.transport.expect("ack")

    def steps(self, train: Images, batches: Iterable[np.ndarray]) -> Iterator[Tuple[InFlight, Message]]:
        """Trains on every batch, each the indices of its images, with up to `in_flight` of them under way; gives each
        batch with the reply to it once it was learned from."""
        waiting: "Deque[InFlight]" = deque()
        for batch in batches:
            waiting.append(self._send_batch(train.images[batch], train.labels[batch], batch))
            if len(waiting) >= self.options.in_flight:
                yield self._finish(waiting.popleft())
        while waiting:
            yield self._finish(waiting.popleft())

    def _epoch(self, train: Images, epoch: int, steps: int) -> Tuple[float, int]:
        """One pass over the share; mean loss and the number of training images classified right."""
        loss, right, start = 0.0, 0, time.perf_counter()
        shown = start
        for done, (_, reply) in enumerate(self.steps(train, self.batches(len(train.labels), steps)), 1):
            loss += frame.field(reply, "loss", float) / steps
            right += _count(reply, "right", self.options.batch)
            self._deviation += frame.field(reply, "dev", float)
            if time.perf_counter() - shown > 0.3:
                event = self._event("progress", epoch, loss * steps / done)
                event["images_per_s"] = done * self.options.batch / (time.perf_counter() - start)
                self._on_event(event)
                shown = time.perf_counter()
        return loss, right

    def batches(self, n: int, steps: int) -> Iterator[np.ndarray]:
        """One epoch: the indices of `steps` batches of `n` images, in an order of its own."""
        order = self._rng.permutation(n)
        for i in range(steps):
            yield order[i * self.options.batch : (i + 1) * self.options.batch]

    def _send_batch(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> InFlight:
        """Sends `images` (n,C,H,W) uint8, which are those of `numbers` (n,) in this device's share."""
        began = time.perf_counter()
        with self.meter.timed("compute"):
            forward = self.front.forward(normalise(self.bundle, images))
        forward.codes["images"] = numbers
        entry = InFlight(forward, self.front.tables, self._step, self._acks, began, self._updates)
        self._send_codes("feature", self._step, labels, forward.codes, "encode")
        self._acks = 0
        self._step += 1
        return entry

    def _send_codes(self, kind: str, step: int, labels: np.ndarray, codes: Arrays, activity: str) -> None:
        with self.meter.timed(activity):
            payload = self._stream.pack(codes)
        header = dict(self._codebook.header if self._codebook else {"v": 0}, n=len(labels))
        parts = (labels.astype(self._label_dtype).tobytes(), payload)
        self.transport.send(Message(kind, self._session, step, header, parts))

    def _finish(self, batch: InFlight) -> Tuple[InFlight, Message]:
        """Waits for the gradient of `batch` and learns from it; `batch` and the reply."""
        start = time.perf_counter()
        self._expect_acks(batch.acks)
        reply = self.transport.expect("gradient", batch.step)
        # Of what the device waited; the server may have worked longer, while this device did too.
        waited_s = time.perf_counter() - start
        server_s = min(frame.field(reply, "s", float), waited_s)
        self._spend("server", server_s)
        self._spend("network", waited_s - server_s)
        with self.meter.timed("encode"):
            (payload,) = frame.parts(reply, 1)
            mask = self.bundle.codec.active(batch.forward.codes, batch.tables) if self._masked else None
            gradient = self._gradient_codec.unpack(payload, batch.forward.feature.shape, mask)
        with self.meter.timed("compute"):
            gradients = self.front.backward(batch.forward, gradient)
            rate = learning_rate(self._schedule, self._learning_rate, batch.step, self._steps)
            self.front.learn(gradients, self._optimizer, rate)
        with self.meter.timed("encode"):
            self._stream.update(batch.forward.codes)
        if self._codebook:
            self._follow(batch.forward)
        if self.options.regroup_every:
            # Copies: an engine may write its next outputs where the last ones are.
            self._recent.append((batch.forward.feature.copy(), gradient))
        self._images += len(batch.forward.image)
        self.staleness += self._updates - batch.updates
        self._updates += 1
        return batch, reply

    def _follow(self, forward: Forward) -> None:
        """Moves the codebook after the features, and tells the server once it moved enough."""
        assert self._codebook is not None
        with self.meter.timed("encode"):
            self._codebook.update(forward.feature, forward.codes["codes"])
        self._publish()

    def _regroup(self) -> None:
        """New groups of channels from the latest batches, where they are better ones; no batch is in flight."""
        assert self._codebook is not None
        with self.meter.timed("encode"):
            feature, gradient = (np.concatenate(arrays) for arrays in zip(*self._recent))
            significance = np.empty(feature.shape[1], dtype=np.float32)
            significance[self.front.tables["order"]] = (gradient**2).mean(axis=(0, 2, 3))
            found = self._codebook.regroup(feature, significance)
        self._recent.clear()
        if found:
            self._publish()
            self._stream.reset()

    def _publish(self) -> None:
        """Brings the engines and the server to the tables as they are now, where they moved enough."""
        assert self._codebook is not None
        with self.meter.timed("encode"):
            payload = self._codebook.publish()
            if payload:
                self.front.set_tables(self._codebook.tables)
        if payload:
            self.transport.send(Message("codebook", self._session, self._codebook.version, {}, (payload,)))
            self._acks += 1

    def _expect_acks(self, n: int) -> None:
        for _ in range(n):
            self.transport.expect("ack")

    def _spend(self, activity: str, seconds: float) -> None:
        self.meter.seconds[activity] = self.meter.seconds.get(activity, 0.0) + seconds

    def _save(self) -> None:
        """Writes the weights and tables as they are now, each file whole or not at all."""
        if self.options.out is None:
            return
        for name, arrays in (("front.safetensors", self.front.state), ("tables.safetensors", self.front.tables)):
            path = os.path.join(self.options.out, name)
            tensorfile.write(path, arrays)

    def _event(self, event: str, epoch: int, loss: float) -> Event:
        return {
            "event": event,
            "device": self.options.name,
            "epoch": epoch,
            "epochs": self.options.epochs,
            "step": self._step,
            "steps": self._steps,
            "images": self._images,
            "loss": loss,
            # Mean over all steps so far of ||g - what arrives|| / ||g||, as the server reports it.
            "gradient_deviation": self._deviation / max(self._updates, 1),
            "staleness": self.staleness / max(self._updates, 1),
            "bytes_up": self.meter.training_bytes("up"),
            "bytes_down": self.meter.training_bytes("down"),
        }


def normalise(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """`images` (n,C,H,W) uint8 as the front half of `bundle` takes them, f32."""
    scaled = images.astype(np.float32) * np.float32(1 / 255)
    return np.asarray((scaled - bundle.mean[:, None, None]) / bundle.std[:, None, None])


def _count(reply: Message, name: str, most: int) -> int:
    """`reply.header[name]`, a count of 0 to `most`; PayloadError otherwise."""
    count: int = frame.field(reply, name, int)
    if not 0 <= count <= most:
        raise PayloadError("{} message: '{}' is {}, expected 0 to {}".format(reply.kind, name, count, most))
    return count

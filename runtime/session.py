"""Session: one device in training, from hello to bye: batches sent, gradients learned from, codebooks kept in step.

::

    images --forward--> codes --pack--> Feature ------------> server
    weights <--learn-- backward <--unpack-- Gradient <-------       the local loss's gradient is added, if there is one
    codebooks --follow, publish--> Codebook ---------------->
    weights --Rounds.update--> Update ---------------------->
    weights <--Rounds.adopt-- Weights <----------------------
"""

import math
import time
from collections import deque
from itertools import chain
from typing import Any, Deque, Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edgekit import tensorfile
from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.codebook import DECAY, TOLERANCE
from edgekit.codecs.registry import gradient_codec
from edgekit.data.augment import parse_augmentation
from edgekit.errors import ShapeError, UsageError
from edgekit.line.labels import pack_labels
from edgekit.line.messages import (
    Ack,
    Bye,
    Codebook,
    Feature,
    Gradient,
    Hello,
    Save,
    Weights,
    Welcome,
)  # fmt: skip
from edgekit.runtime.codebooks import Codebooks, codebooks_of, take_tables
from edgekit.runtime.front import Forward, Front, Local
from edgekit.runtime.gradient_errors import GradientErrors
from edgekit.runtime.local_loss import LocalLoss
from edgekit.runtime.optim import optimizer
from edgekit.runtime.rounds import Rounds
from edgekit.runtime.saver import Saver
from edgekit.runtime.transport import Transport
from edgekit.saves import Saves

#: Tells the draws of augmentation from the others of a device's seed: order of images (no number), rounds (1).
AUGMENTING = 2


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
    #: Epochs from one evaluation to the next; the last one is always evaluated.
    evaluate_every: int = 1
    out: Optional[str] = None
    #: What is done to training images, "flip,crop:4", see `edgekit.data.augment`; None: nothing.
    augment: Optional[str] = None
    #: Whether the halves of an earlier run, which `out` may hold, are to be lost.
    overwrite: bool = False
    #: Whether to go on from the saves in `out`, where there are any.
    resume: bool = False

    @property
    def window(self) -> int:
        """Most messages without an answer at a time: for each batch in flight it and the codebooks after it."""
        return 2 * self.in_flight + 2


def check_options(options: Options) -> None:
    """UsageError for options that nothing can be trained with, whatever the images."""
    least = {"epochs": 1, "batch": 2, "in_flight": 1, "regroup_every": 0, "evaluate_every": 1}
    for name, smallest in least.items():
        if getattr(options, name) < smallest:
            told = "{} of {}: expected at least {}"
            raise UsageError(told.format(name, getattr(options, name), smallest))
    if not 0 <= options.codebook_tolerance < math.inf:
        raise UsageError("codebook_tolerance of {}: expected at least 0".format(options.codebook_tolerance))
    if options.augment is not None:
        parse_augmentation(options.augment)


def check_augment(augment: Optional[str], codec: FeatureCodec, image: Optional[Sequence[int]] = None) -> None:
    """UsageError where `codec` needs training images unchanged, or where they, (C,H,W), are too small for `augment`."""
    if augment is None:
        return
    chosen = parse_augmentation(augment)
    if codec.stream().remembers:
        raise UsageError(
            "--augment {}: {!r} codes an image by the codes that it had in the epoch before, and an augmented image is "
            "another one each time: take coding=context (--coding context, when the network is exported)".format(
                augment, codec
            )
        )
    if image is not None:
        chosen.check(image)


class InFlight(NamedTuple):
    """A batch whose gradient has not come back yet."""

    forward: Forward
    tables: Arrays
    #: (n,) numbers of its images, by which both ends know them again.
    images: np.ndarray
    step: int
    #: Codebook updates sent since the batch before, whose acknowledgements come first.
    acks: int
    #: When its forward pass began, by `time.perf_counter`, and how often the weights had moved by then.
    began: float
    updates: int
    #: None where there is no local loss.
    local: Optional[Local]


class Session:
    """A front half, and the line to the server. `hello` begins it."""

    def __init__(self, front: Front, transport: Transport, options: Options) -> None:
        self.front = front
        #: What the server may ask to be saved; `Device` puts another one here.
        self.saver = Saver(Saves(None), {}, lambda event: None)
        self.transport = transport
        self.meter = transport.meter
        self.options = options
        self.codebooks = _codebooks(front, options)
        self._augment = None if options.augment is None else parse_augmentation(options.augment)
        #: Batches planned, batches sent, images learned from, and those of them since the last round.
        self.planned = self.step = self.images = self.since_round = 0
        self.errors = GradientErrors()
        #: Weight updates so far, and the sum over batches of those between forward pass and gradient.
        self.updates = self.staleness = 0

    def hello(self, images: int, steps: int, epochs: int, classes: Sequence[str] = ()) -> int:
        """Starts the session, for `epochs` epochs of at least `steps` batches; returns the epochs done before.

        It may wait until other devices have come.
        """
        own = self.options
        # Both ends of its line start anew.
        self.stream = self.front.codec.stream()
        _check_depth(own.in_flight, self.front.codec, self.stream.in_flight)
        most = own.window if self.transport.comes_back else 0
        self.transport.send(
            Hello(self.front.digest, own.name, images, steps, epochs, list(classes), True, most, True, True)
        )
        welcome = self.transport.expect(Welcome)
        self.transport.begin(welcome.session, welcome.token)
        self.begin(welcome)
        self.planned = self.steps_per_epoch * (epochs - min(welcome.epoch, epochs))
        return welcome.epoch

    def begin(self, welcome: Welcome) -> None:
        """Makes ready for the session that `welcome` says."""
        self.welcome = welcome
        self._acks = 0  # under way
        self.before_round: Dict[str, Any] = {}  # that of `rounds`, while the answer to a round is waited for
        self.steps_per_epoch = max(welcome.steps, 1)  # batches
        self._gradient_codec = gradient_codec(welcome.gradient_codec, welcome.gradient_config)
        config = {"momentum": welcome.momentum, "weight_decay": welcome.weight_decay}
        self.optimizer = optimizer(welcome.optimizer, config)
        if welcome.tables:
            take_tables(self.front, tensorfile.loads(welcome.tables))
            self.codebooks = _codebooks(self.front, self.options)
        self.local = LocalLoss(self.front, welcome.local_loss, self.meter)
        self.rounds = Rounds(self.front, welcome, self.options.seed)
        if self.rounds.averaged and self.options.regroup_every:
            raise UsageError("--regroup-every: with --sync-every all devices keep one grouping: leave one of them out")

    def save(self, label: int) -> None:
        """Saves this device's state as `label`, where the server asked for that; no batch may be in flight."""
        if label:
            self.settle()
            self.saver.save(self.transport, self.welcome.session, label)

    def bye(self) -> bool:
        """Ends the session; whether the server has saved that."""
        self.settle()
        self.transport.send(Bye(self.welcome.session))
        return self.transport.expect(Ack).step > 0

    def round(self, left: int, test: bool) -> None:
        """Puts what was learned into the average of all devices and goes on from that; no batch may be in flight.

        `left` images are still planned. It waits for the other devices.
        """
        self.settle()
        self.before_round = self.rounds.state()
        with self.meter.timed("encode"):
            update = self.rounds.update(self.since_round, left, test)
        weights: Union[Weights, Save] = Save(0, 0)
        while isinstance(weights, Save):
            self.save(weights.step)
            self.transport.send(update)
            with self.meter.timed("round"):
                weights = self.transport.expect_any(Weights, Save)
        self.before_round = {}
        with self.meter.timed("encode"):
            self.rounds.adopt(weights)
            if weights.tables:
                if self.codebooks is None:
                    raise ShapeError("new codebooks for codec {!r}, which has none".format(self.front.codec))
                self.codebooks.adopt(weights.tables)
        self.since_round = 0

    def settle(self) -> None:
        """Waits for the acknowledgements that are under way; no batch may be in flight."""
        self._expect_acks(self._acks)
        self._acks = 0

    def steps(self, train: Images, batches: Iterable[np.ndarray]) -> Iterator[Tuple[InFlight, Gradient]]:
        """Trains on every batch, each the indices of its images, with up to `in_flight` of them under way; gives each
        batch with the reply to it, once it was learned from or left out."""
        waiting: "Deque[InFlight]" = deque()
        label = 0
        for batch in chain(batches, (None,)):
            if batch is not None:
                waiting.append(self._send(train.images[batch], train.labels[batch], batch))
            while waiting and (len(waiting) >= self.options.in_flight or label or batch is None):
                finished, reply = self._finish(waiting.popleft())
                label = max(label, reply.save)
                yield finished, reply
            if not waiting:
                self.save(label)
                label = 0

    def regroup(self) -> None:
        """Groups the channels anew where that is better; no batch may be in flight."""
        assert self.codebooks is not None
        with self.meter.timed("encode"):
            found = self.codebooks.regroup()
        if found:
            self._publish()
            self.stream.reset()

    @property
    def version(self) -> int:
        """Version of the codec's tables."""
        return self.codebooks.version if self.codebooks else 0

    def _send(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> InFlight:
        """Sends `images` (n,C,H,W) uint8, which are those of `numbers` (n,) in this device's share."""
        began = time.perf_counter()
        with self.meter.timed("compute"):
            if self._augment is not None:
                # By the step, so that what is drawn for it depends on nothing else.
                drawn_from = self.options.seed, AUGMENTING, self.welcome.epoch, self.step
                images = self._augment(images, np.random.default_rng(drawn_from))
            forward = self.front.forward(self.front.normalise(images))
        with self.meter.timed("encode"):
            payload = self.stream.pack(forward.codes, numbers)
        packed = pack_labels(labels, self.front.classes)
        missing = self.codebooks.missing if self.codebooks and self.welcome.noise_filling else None
        self.transport.send(
            Feature(self.welcome.session, self.step, self.version, len(labels), packed, payload, missing)
        )
        # Only now: the server works meanwhile.
        local = self.local.of(forward, labels)
        sent = InFlight(forward, self.front.tables, numbers, self.step, self._acks, began, self.updates, local)
        self._acks = 0
        self.step += 1
        return sent

    def _finish(self, batch: InFlight) -> Tuple[InFlight, Gradient]:
        """Waits for the gradient of `batch` and learns from it; `batch` and the reply."""
        start = time.perf_counter()
        self._expect_acks(batch.acks)
        reply = self.transport.expect(Gradient, batch.step)
        # Of what the device waited; the server may have worked longer, while this device did too.
        waited_s = time.perf_counter() - start
        server_s = min(reply.seconds, waited_s)
        self.meter.spend("server", server_s)
        self.meter.spend("network", waited_s - server_s)
        # Else the server left the batch out: nothing is learned from it.
        if reply.learned:
            self._learn(batch, reply)
        with self.meter.timed("encode"):
            self.stream.update(batch.forward.codes, batch.images)
        if self.codebooks:
            self._publish()
        return batch, reply

    def _learn(self, batch: InFlight, reply: Gradient) -> None:
        """One step of the front half, after which the codebooks follow."""
        server = None
        if reply.gradient:
            with self.meter.timed("encode"):
                mask = self.front.codec.active(batch.forward.codes, batch.tables) if self.welcome.masked else None
                server = self._gradient_codec.unpack(reply.gradient, batch.forward.feature.shape, mask)
        with self.meter.timed("compute"):
            gradient = self.local.joined(batch.local, server)
            gradients = self.front.backward(batch.forward, gradient)
            gradients.update(batch.local.gradients if batch.local else {})
            self.front.learn(gradients, self.optimizer, reply.rate)
        if self.codebooks:
            with self.meter.timed("encode"):
                self.codebooks.follow(batch.forward, gradient)
        self.since_round += len(batch.forward.image)
        self.images += len(batch.forward.image)
        self.errors.add(reply)
        self.staleness += self.updates - batch.updates
        self.updates += 1

    def _publish(self) -> None:
        """Brings the engines and the server to the codebooks as they are now, where they moved enough."""
        assert self.codebooks is not None
        with self.meter.timed("encode"):
            update = self.codebooks.publish()
        if update:
            self.transport.send(Codebook(self.welcome.session, self.codebooks.version, update))
            self._acks += 1

    def _expect_acks(self, n: int) -> None:
        for _ in range(n):
            self.transport.expect(Ack)


def _check_depth(in_flight: int, codec: FeatureCodec, most: Optional[int]) -> None:
    if most is not None and in_flight > most:
        raise UsageError("{} batches in flight: codec {!r} takes at most {}".format(in_flight, codec, most))


def _codebooks(front: Front, o: Options) -> Optional[Codebooks]:
    return codebooks_of(front, o.codebook_decay, o.codebook_tolerance, o.regroup_every, o.seed)

"""Device: the loop of one device: epochs of training, evaluation of what is deployed, events, and what is kept."""

import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgekit.errors import UsageError
from edgekit.line.messages import check_count
from edgekit.runtime.front import Front
from edgekit.runtime.keep import Keeper
from edgekit.runtime.session import Images, Options, Session, check_augment, check_options
from edgekit.runtime.transport import Transport

Event = Dict[str, Any]


class Device:
    """One device: a front half, its share of the training images, and the line to the server."""

    def __init__(
        self,
        front: Front,
        transport: Transport,
        options: Options,
        on_event: Callable[[Event], None],
        classes: Sequence[str] = (),
    ) -> None:
        self.front = front
        #: Names of the classes that the device has images of, as its bundle calls them.
        self.classes = classes
        self.options = options
        self.session = Session(front, transport, options)
        self.meter = transport.meter
        self._on_event = on_event
        self._rng = np.random.default_rng(options.seed)
        self._train_s = 0.0
        #: What the server noticed about this device at the latest step.
        self._warning = ""

    def train(self, train: Images, test: Images, validation: Optional[Images] = None) -> Event:
        """Trains for the planned epochs, evaluating after each or every few; returns the "done" event.

        Where front halves are averaged there is a round before each test, so that what is tested is what all have.
        `validation` images, if any, decide which pair of halves is the best. UsageError, before the server is spoken
        to, where the folder to keep the front half in holds an earlier one, cannot be written to, or has no room.
        """
        options, session = self.options, self.session
        steps = self.steps_per_epoch(train)
        self._keep = Keeper(self.front, options, self._on_event)
        begun = session.hello(len(train.labels), steps, options.epochs, self.classes)
        steps = session.steps_per_epoch
        self._on_event(self._event("connected", begun, 0.0))
        event = self._event("epoch", begun, 0.0)
        loss, accuracy, head = 0.0, 0.0, 0.0
        for epoch in range(begun + 1, options.epochs + 1):
            last = epoch == options.epochs
            evaluated = last or epoch % options.evaluate_every == 0
            start, before = time.perf_counter(), session.local.total
            mean, right, images = self._epoch(train, epoch, steps, evaluated)
            # A device that rested all the time keeps the figures that it had.
            if images:
                loss, accuracy = mean, 100.0 * right / images
                head = (session.local.total - before) / images
            if options.regroup_every and epoch % options.regroup_every == 0 and not last:
                session.regroup()
            elapsed = time.perf_counter() - start
            self._train_s += elapsed
            tested: Event = {}
            if evaluated:
                self._on_event(self._event("testing", epoch, loss))
                tested = self._test(test, validation, epoch)
            event = self._event("epoch", epoch, loss)
            event.update(tested, train_accuracy=accuracy)
            self._keep.now(epoch, bool(tested) and tested["fleet"]["best"])
            event.update(images_per_s=images / elapsed, train_s=self._train_s, seconds=dict(self.meter.seconds))
            if session.local.weight:
                event["head_loss"] = head
            if session.codebooks:
                event["codebook"] = session.codebooks.health()
            self._on_event(event)
        if begun >= options.epochs:
            # The run was over when this device came: it takes the network that came of it.
            session.round(0, test=True)
            event.update(self._test(test, validation, options.epochs))
            self._keep.now(options.epochs, best=False)
        session.bye()
        done = dict(event, **self._event("done", options.epochs, event["loss"]))
        done.update(train_s=self._train_s, bytes=self.meter.by_kind(), seconds=dict(self.meter.seconds))
        self._on_event(done)
        return done

    def evaluate(self, test: Images, validation: bool = False) -> Event:
        """What the deployed pipeline makes of all of `test`: accuracy and balanced accuracy in percent, mean loss, and
        for each class how many images there are and how many were right."""
        session = self.session
        session.settle()
        classes = self.front.classes
        right, loss = np.zeros(len(test.labels), dtype=bool), 0.0
        waiting: Deque[int] = deque()
        size = min(self.options.batch, self.front.most or self.options.batch)
        for start in range(0, len(test.labels) + 2 * size, size):
            labels = test.labels[start : start + size]
            if len(labels):
                session.send_test(start // size, test.images[start : start + size], labels, validation)
                waiting.append(start)
            if len(waiting) > 1 or (waiting and not len(labels)):
                first = waiting.popleft()
                sent = test.labels[first : first + size]
                predicted, mean_loss = session.result(len(sent))
                right[first : first + size] = predicted == sent
                loss += mean_loss * len(sent)
        images = np.bincount(test.labels, minlength=classes)
        correct = np.bincount(test.labels[right], minlength=classes)
        return {
            "accuracy": 100.0 * int(correct.sum()) / max(len(test.labels), 1),
            "balanced_accuracy": balanced(correct, images),
            "test_loss": loss / max(len(test.labels), 1),
            "by_class": {"images": images.tolist(), "correct": correct.tolist()},
        }

    def steps_per_epoch(self, train: Images) -> int:
        """Batches that the images of `train` are split into; UsageError for options that cannot be trained with."""
        options = self.options
        check_options(options)
        check_augment(options.augment, self.front.codec, train.images.shape[1:])
        if len(train.labels) < 2:
            told = "{} training images: expected at least 2 for a batch"
            raise UsageError(told.format(len(train.labels)))
        # Batch norm cannot train on one image alone, which would be left of an odd number in batches of 2.
        return min(-(-len(train.labels) // options.batch), len(train.labels) // 2)

    def batches(self, n: int, steps: int) -> List[np.ndarray]:
        """One epoch: the indices of `steps` batches of about equal size, `n` images in an order of its own.

        Where there are fewer images than steps each is a batch.
        """
        return [batch for batch in np.array_split(self._rng.permutation(n), steps) if len(batch)]

    def _epoch(self, train: Images, epoch: int, steps: int, ends: bool) -> Tuple[float, int, int]:
        """One pass over the share, with its rounds; `ends`: the front half must be in step after it.

        Mean loss, the number of training images classified right, and that of all that were learned from.
        """
        session, rounds = self.session, self.session.rounds
        loss, right, images = 0.0, 0, 0
        begun = shown = time.perf_counter()
        last = epoch == self.options.epochs
        left = (self.options.epochs - epoch) * len(train.labels)
        batches = self.batches(len(train.labels), steps)
        ahead = sum(map(len, batches))
        for leg in rounds.legs(batches, epoch, ends):
            chosen = list(leg) if rounds.resting else []
            for sent, reply in session.steps(train, leg):
                n = len(sent.images)
                if reply.learned:
                    loss, images = loss + reply.loss * n, images + n
                    right += check_count(reply.correct, n, "gradient message: 'correct'")
                ahead -= n
                if reply.warning not in ("", self._warning):
                    self._on_event(dict(self._event("warned", epoch, reply.loss), warning=reply.warning))
                self._warning = reply.warning
                self._keep.if_due(epoch - 1)
                if time.perf_counter() - shown > 0.3:
                    event = self._event("progress", epoch, loss / max(images, 1))
                    event["images_per_s"] = images / (time.perf_counter() - begun)
                    self._on_event(event)
                    shown = time.perf_counter()
            ahead -= sum(map(len, chosen))
            if rounds.due:
                session.round(left + ahead, test=ends and not ahead)
        if last and not rounds.averaged:
            # Nothing is averaged: all devices wait here for each other, so that the last test is of the last back half.
            session.round(0, test=True)
        return loss / max(images, 1), right, images

    def _test(self, test: Images, validation: Optional[Images], epoch: int) -> Event:
        """What an epoch's event says of the test: of this device's images, and in "fleet" of all devices'."""
        found = self.evaluate(test)
        if validation is not None and len(validation.labels):
            held_out = self.evaluate(validation, validation=True)
            found.update(validation_accuracy=held_out["accuracy"], validation_loss=held_out["test_loss"])
        tally = self.session.tested(epoch)
        found["fleet"] = {
            "images": tally.images,
            "accuracy": 100.0 * tally.correct / max(tally.images, 1),
            "test_loss": tally.loss,
            "best": tally.best,
        }
        return found

    def _event(self, event: str, epoch: int, loss: float) -> Event:
        session = self.session
        return {
            "event": event,
            "device": self.options.name,
            "epoch": epoch,
            "epochs": self.options.epochs,
            "step": session.step,
            "steps": session.planned,
            "images": session.images,
            "loss": loss,
            # Means over all steps so far, of errors over the gradients that came.
            "staleness": session.staleness / max(session.updates, 1),
            "bytes_up": self.meter.training_bytes("up"),
            "bytes_down": self.meter.training_bytes("down"),
            **session.errors.told(),
        }


def balanced(correct: np.ndarray, images: np.ndarray) -> float:
    """Mean over the classes that have images of the share that is correct, in percent."""
    there = images > 0
    return 100.0 * float((correct[there] / images[there]).mean()) if there.any() else 0.0

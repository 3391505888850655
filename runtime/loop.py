"""Device: the loop of one device: epochs of training, evaluation of what is deployed, events, and what is kept."""

import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Tuple

import numpy as np

from edgekit import tensorfile
from edgekit.errors import UsageError
from edgekit.line.messages import check_count
from edgekit.runtime.front import Front
from edgekit.runtime.session import Images, Options, Session, check_options
from edgekit.runtime.transport import Transport
from edgekit.tensorfile import make_folder

Event = Dict[str, Any]


class Device:
    """One device: a front half, its share of the training images, and the line to the server."""

    def __init__(self, front: Front, transport: Transport, options: Options, on_event: Callable[[Event], None]) -> None:
        self.front = front
        self.options = options
        self.session = Session(front, transport, options)
        self.meter = transport.meter
        self._on_event = on_event
        self._rng = np.random.default_rng(options.seed)
        self._train_s = 0.0

    def train(self, train: Images, test: Images) -> Event:
        """Trains for the planned epochs, evaluating after each or every few; returns the "done" event."""
        options, session = self.options, self.session
        steps = self.steps_per_epoch(train)
        if options.out is not None:
            make_folder(options.out)
        session.hello(steps * options.epochs)
        self._on_event(self._event("connected", 0, 0.0))
        for epoch in range(1, options.epochs + 1):
            start = time.perf_counter()
            loss, right = self._epoch(train, epoch, steps)
            last = epoch == options.epochs
            if options.regroup_every and epoch % options.regroup_every == 0 and not last:
                session.regroup()
            elapsed = time.perf_counter() - start
            self._train_s += elapsed
            evaluated = last or epoch % options.evaluate_every == 0
            accuracy, test_loss = self.evaluate(test) if evaluated else (0.0, 0.0)
            self._save()
            event = self._event("epoch", epoch, loss)
            event["train_accuracy"] = 100.0 * right / (steps * options.batch)
            if evaluated:
                event.update(accuracy=accuracy, test_loss=test_loss)
            event["images_per_s"] = steps * options.batch / elapsed
            if session.codebooks:
                event["codebook"] = session.codebooks.health()
            self._on_event(event)
        session.bye()
        done = self._event("done", options.epochs, loss)
        done.update(
            accuracy=accuracy, train_s=self._train_s, bytes=self.meter.by_kind(), seconds=dict(self.meter.seconds)
        )
        if session.codebooks:
            done["codebook"] = session.codebooks.health()
        self._on_event(done)
        return done

    def evaluate(self, test: Images) -> Tuple[float, float]:
        """Accuracy in percent and mean loss of the deployed pipeline over all of `test`."""
        session = self.session
        session.settle()
        right, loss = 0, 0.0
        waiting: Deque[int] = deque()
        size = min(self.options.batch, self.front.most or self.options.batch)
        for start in range(0, len(test.labels) + 2 * size, size):
            labels = test.labels[start : start + size]
            if len(labels):
                session.send_test(start // size, test.images[start : start + size], labels)
                waiting.append(len(labels))
            if len(waiting) > 1 or (waiting and not len(labels)):
                result, sent = session.result(), waiting.popleft()
                right += check_count(result.correct, sent, "result message: 'correct'")
                loss += result.loss * sent
        return 100.0 * right / len(test.labels), loss / len(test.labels)

    def steps_per_epoch(self, train: Images) -> int:
        """Whole batches in `train`; UsageError for options that cannot be trained with."""
        options = self.options
        check_options(options)
        steps = len(train.labels) // options.batch
        if not steps:
            told = "{} training images in batches of {}: expected at least one whole batch"
            raise UsageError(told.format(len(train.labels), options.batch))
        return steps

    def batches(self, n: int, steps: int) -> Iterator[np.ndarray]:
        """One epoch: the indices of `steps` batches of `n` images, in an order of its own."""
        order = self._rng.permutation(n)
        for i in range(steps):
            yield order[i * self.options.batch : (i + 1) * self.options.batch]

    def _epoch(self, train: Images, epoch: int, steps: int) -> Tuple[float, int]:
        """One pass over the share; mean loss and the number of training images classified right."""
        loss, right, start = 0.0, 0, time.perf_counter()
        shown = start
        for done, (_, reply) in enumerate(self.session.steps(train, self.batches(len(train.labels), steps)), 1):
            loss += reply.loss / steps
            right += check_count(reply.correct, self.options.batch, "gradient message: 'correct'")
            if time.perf_counter() - shown > 0.3:
                event = self._event("progress", epoch, loss * steps / done)
                event["images_per_s"] = done * self.options.batch / (time.perf_counter() - start)
                self._on_event(event)
                shown = time.perf_counter()
        return loss, right

    def _save(self) -> None:
        """Writes the weights and tables as they are now, each file whole or not at all."""
        if self.options.out is None:
            return
        for name, arrays in (("front.safetensors", self.front.state), ("tables.safetensors", self.front.tables)):
            tensorfile.write(os.path.join(self.options.out, name), arrays)

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
            # Means over all steps so far.
            "gradient_deviation": session.deviation / max(session.updates, 1),
            "staleness": session.staleness / max(session.updates, 1),
            "bytes_up": self.meter.training_bytes("up"),
            "bytes_down": self.meter.training_bytes("down"),
        }

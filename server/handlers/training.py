"""Answers feature messages: one step of the back half on the batches of several devices, and each one's gradient.

::

    codes --unpack_batch--> feature --noise filling--> BackHalf.step --> Calibrator.send --> gradient
                └ a step done before: the reply that was kept, nothing is learned twice
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from edgekit.errors import Refused
from edgekit.line.messages import Feature, Gradient
from edgekit.schedule import learning_rate
from edgekit.server.fleet import Fleet
from edgekit.server.handlers.batch import Batch, unpack_batch
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.train import Part


class Work(NamedTuple):
    """A batch that waits for its step."""

    session: Session
    message: Feature
    batch: Batch
    #: Seconds that unpacking took.
    seconds: float


def repeated(session: Session, message: Feature) -> Gradient | None:
    """The reply that was given to `message` before, if it was. Refused unless it is the session's next step else."""
    step = message.step
    if step in session.replies:
        return session.replies[step]
    if step < session.step:
        raise Refused(f"step {step} is done and its reply no longer kept; the next step is {session.step}")
    if step > session.step:
        raise Refused(f"got step {step}, expected step {session.step}: steps come one after another")
    return None


def take(setup: Setup, session: Session, message: Feature) -> Work:
    """The batch in `message`, to be trained on. Refused or PayloadError when it cannot be taken.

    What is wrong with one batch is found here: in the joint step it would be an error of all devices.
    """
    start = time.perf_counter()
    if message.images < 1:
        raise Refused(f"a batch of {message.images} images: expected at least 1")
    if setup.noise_filling is not None:
        setup.noise_filling.missing(message)
    batch = unpack_batch(setup, session, message)
    if not bool(torch.isfinite(batch.feature).all()):
        raise Refused("a feature that is infinite or not a number: training diverged on this device, lower --lr")
    return Work(session, message, batch, time.perf_counter() - start)


def train(setup: Setup, fleet: Fleet, works: Sequence[Work]) -> list[Gradient]:
    """Trains the back half once on all of `works`, in their order; the reply to each."""
    start = time.perf_counter()
    parts = []
    for session, message, batch, _ in works:
        feature = batch.feature
        if setup.noise_filling is not None:
            feature = setup.noise_filling.apply(feature, message, session.seed, fleet.progress)
        parts.append(Part(feature, batch.order, batch.labels))
    before, after = fleet.advance({work.session.number: work.message.images for work in works})
    images = sum(work.message.images for work in works)
    rate = learning_rate(setup.schedule, setup.optimizer.rate(images, fleet.batch), before, after)
    outcomes = setup.back.step(parts, rate)
    fleet.steps += 1
    shared_s = (time.perf_counter() - start) / len(works)
    replies = []
    for (session, message, batch, unpack_s), outcome in zip(works, outcomes, strict=True):
        start, step = time.perf_counter(), message.step
        active = setup.codec.active(batch.codes, session.tables) if setup.calibrator.masked else None
        payload, deviation = setup.calibrator.send(outcome.gradient, active, session.seed, step)
        session.stream.update(batch.codes, batch.images)
        seconds = round(unpack_s + shared_s + time.perf_counter() - start, 6)
        loss = round(outcome.loss, 6)
        reply = Gradient(
            session.number, step, loss, outcome.right, round(deviation, 6), seconds, payload, float(f"{rate:.6g}")
        )  # fmt: skip
        session.keep(reply)
        replies.append(reply)
    return replies

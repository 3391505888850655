"""Answers feature messages: one step of the back half on the batches of several devices, and each one's gradient.

::

    codes --unpack_batch--> feature --Watch.look--> noise filling --> BackHalf.step --> Calibrator.send --> gradient
                │                        └ odd: left out, an empty gradient
                └ a step done before: the reply that was kept, nothing is learned twice
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgekit.errors import Diverged, Refused
from edgekit.line.messages import Feature, Gradient
from edgekit.schedule import learning_rate
from edgekit.server.decode import to_network_order
from edgekit.server.fleet import Fleet
from edgekit.server.handlers.batch import Batch, unpack_batch
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.train import Part
from edgekit.server.watch import Watch


@dataclass(frozen=True, eq=False)
class Work:
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


def train(setup: Setup, fleet: Fleet, watch: Watch | None, works: Sequence[Work]) -> list[Gradient]:
    """Trains the back half once on all of `works`, in their order; the reply to each.

    A batch that `watch` finds odd is left out: nobody learns from it. Diverged when it finds the whole run lost.
    """
    start = time.perf_counter()
    before, after = fleet.advance({work.session.number: work.message.images for work in works})
    odd = {} if watch is None else {work: why for work in works if (why := _look(watch, work))}
    taken = [work for work in works if work not in odd]
    # Where devices take their steps together, one that has few images may be alone with one of them.
    if fleet.steps_per_epoch and sum(work.message.images for work in taken) < setup.back.batch[0]:
        taken = []
    outcomes, rate = {}, 0.0
    if taken:
        rate = learning_rate(
            setup.schedule, setup.optimizer.rate(sum(w.message.images for w in taken), fleet.batch), before, after
        )  # fmt: skip
        parts = [Part(_filled(setup, work, before), work.batch.order, work.batch.labels) for work in taken]
        outcomes = dict(zip(taken, setup.back.step(parts, rate), strict=True))
        fleet.steps += 1
    if watch is not None and outcomes:
        watch.learned({work.session.device: (each.loss, work.batch.labels) for work, each in outcomes.items()})
    lost = watch.diverged() if watch is not None else None
    if lost:
        raise Diverged(lost)
    shared_s = (time.perf_counter() - start) / len(works)
    replies = []
    for work in works:
        session, message, batch = work.session, work.message, work.batch
        start, outcome = time.perf_counter(), outcomes.get(work)
        payload, deviation = b"", 0.0
        if outcome is not None:
            active = setup.codec.active(batch.codes, session.tables) if setup.calibrator.masked else None
            payload, deviation = setup.calibrator.send(outcome.gradient, active, session.seed, message.step)
        session.stream.update(batch.codes, batch.images)
        reply = Gradient(
            session.number, message.step, round(outcome.loss, 6) if outcome else 0.0, outcome.right if outcome else 0,
            round(deviation, 6), round(work.seconds + shared_s + time.perf_counter() - start, 6), payload,
            float(f"{rate:.6g}"), (watch.warning(session.device) or "") if watch is not None else "",
        )  # fmt: skip
        session.keep(reply)
        replies.append(reply)
    return replies


def _look(watch: Watch, work: Work) -> str | None:
    """Why `work` must be left out, or None."""
    feature = to_network_order(work.batch.feature, work.batch.order)
    return watch.look(work.session.device, feature, work.session.hello.images)


def _filled(setup: Setup, work: Work, progress: float) -> torch.Tensor:
    """The feature of `work` as it is trained on."""
    if setup.noise_filling is None:
        return work.batch.feature
    return setup.noise_filling.apply(work.batch.feature, work.message, work.session.seed, progress)

"""Answers feature messages: one step of the back half on the batches of several devices, and each one's gradient.

::

    take     of each device     codes --unpack_batch--> feature --look_at--> its look
    train    of all together    --Watch.look--> noise filling --> BackHalf.step --> gradients
                                      └ odd: left out, an empty gradient
    remember of each device     the stream's tables learn
    answer   of each device     gradient --Calibrator.send--> bytes, or none in steps that have none

`take`, `remember` and `answer` touch nothing but the device's session: the devices' threads do them side by side.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgekit.errors import Diverged, Refused
from edgekit.line.messages import Feature, Gradient
from edgekit.schedule import learning_rate
from edgekit.server.decode import finite, to_network_order
from edgekit.server.fleet import Fleet
from edgekit.server.handlers.batch import Batch, unpack_batch
from edgekit.server.look import Look, look_at
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.train import Outcome, Part
from edgekit.server.watch import Watch


@dataclass(frozen=True, eq=False)
class Work:
    """A batch that waits for its step."""

    session: Session
    message: Feature
    batch: Batch
    #: None where nobody looks.
    look: Look | None
    #: Seconds that unpacking took.
    seconds: float


@dataclass(frozen=True, eq=False)
class Learned:
    """What a joint step came to for one batch."""

    work: Work
    #: None where the batch was left out.
    outcome: Outcome | None
    #: The learning rate, 0 where nobody learned.
    rate: float
    #: What the device is warned of, or "".
    warning: str
    #: Its part of the seconds that the step took.
    seconds: float
    #: The label that its device is to save as, 0 where it is not to.
    save: int = 0


def take(setup: Setup, session: Session, message: Feature, watched: bool) -> Work:
    """The batch in `message`, to be trained on. Refused or PayloadError when it cannot be taken.

    What is wrong with one batch is found here: in the joint step it would be an error of all devices. `watched`:
    whether there is a watch that will look at it.
    """
    start = time.perf_counter()
    if message.step != session.step:
        raise Refused(f"got step {message.step}, expected step {session.step}: steps come one after another")
    if message.images < 1:
        raise Refused(f"a batch of {message.images} images: expected at least 1")
    if setup.noise_filling is not None:
        setup.noise_filling.missing(message)
    batch = unpack_batch(setup, session, message)
    if not finite([batch.feature]):
        raise Refused("a feature that is infinite or not a number: training diverged on this device, lower --lr")
    look = look_at(to_network_order(batch.feature, batch.order)) if watched else None
    return Work(session, message, batch, look, time.perf_counter() - start)


def train(setup: Setup, fleet: Fleet, watch: Watch | None, works: Sequence[Work]) -> list[Learned]:
    """Trains the back half once on all of `works`, in their order; what came of each, whose step is done.

    A batch that `watch` finds odd is left out: nobody learns from it. Diverged when it finds the whole run lost.
    """
    start = time.perf_counter()
    before, after = fleet.advance({work.session.number: work.message.images for work in works})
    odd = {work for work in works if watch is not None and _odd(watch, work)}
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
    for work in works:
        work.session.step += 1
    seconds = (time.perf_counter() - start) / len(works)
    return [
        Learned(work, outcomes.get(work), rate, (watch and watch.warning(work.session.device)) or "", seconds)
        for work in works
    ]


def remember(learned: Learned) -> None:
    """The session's stream learns from the codes of `learned`; before that, its next batch cannot be unpacked."""
    work = learned.work
    work.session.stream.update(work.batch.codes, work.batch.images)


def answer(setup: Setup, learned: Learned) -> Gradient:
    """The reply to the batch of `learned`."""
    work, outcome = learned.work, learned.outcome
    session, message, batch = work.session, work.message, work.batch
    start = time.perf_counter()
    payload, deviation, error = b"", 0.0, None
    sends = setup.local_loss.sends(message.step)
    if outcome is not None and sends:
        payload, deviation, error = _compressed(setup, session, batch, outcome.gradient, message.step)
    seconds = work.seconds + learned.seconds + time.perf_counter() - start
    return Gradient(
        session.number, message.step, round(outcome.loss, 6) if outcome else 0.0, outcome.right if outcome else 0,
        round(deviation, 6), round(seconds, 6), payload, float(f"{learned.rate:.6g}"), learned.warning,
        None if error is None else round(error, 3),
        outcome is not None and not sends, learned.save,
    )  # fmt: skip


def _compressed(
    setup: Setup, session: Session, batch: Batch, gradient: np.ndarray, step: int
) -> tuple[bytes, float, float | None]:
    """Payload and deviation of `gradient`, and its error where a bound is kept and the error was measured."""
    calibrator = setup.calibrator
    active = setup.codec.active(batch.codes, session.tables) if calibrator.masked else None
    if calibrator.bound is None:
        return (*calibrator.send(gradient, active, session.seed, step), None)
    return session.fineness.send(calibrator, gradient, active, batch.feature, session.seed, step)


def _odd(watch: Watch, work: Work) -> bool:
    """Whether `work` must be left out."""
    assert work.look is not None
    return watch.look(work.session.device, work.look, work.session.hello.images) is not None


def _filled(setup: Setup, work: Work, progress: float) -> torch.Tensor:
    """The feature of `work` as it is trained on."""
    # There are no features of what another rank has.
    if setup.noise_filling is None or not len(work.batch.feature):
        return work.batch.feature
    return setup.noise_filling.apply(work.batch.feature, work.message, work.session.seed, progress)

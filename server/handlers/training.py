"""Answers feature messages: one step of the back half, and the gradient at the cut.

::

    codes --unpack_batch--> feature --noise filling--> BackHalf.step --> Calibrator.send --> gradient
                └ a step done before: the reply that was kept, nothing is learned twice
"""

import time

from edgekit.errors import Refused
from edgekit.line.messages import Feature, Gradient
from edgekit.schedule import learning_rate
from edgekit.server.handlers.batch import unpack_batch
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.train import Part


def train(setup: Setup, session: Session, message: Feature) -> Gradient:
    """Trains the back half on the batch in `message`, once."""
    start, step = time.perf_counter(), message.step
    if step in session.replies:
        return session.replies[step]
    if step < session.step:
        raise Refused(f"step {step} is done and its reply no longer kept; the next step is {session.step}")
    if step > session.step:
        raise Refused(f"got step {step}, expected step {session.step}: steps come one after another")
    batch = unpack_batch(setup, session, message)
    feature = batch.feature
    if setup.noise_filling is not None:
        feature = setup.noise_filling.apply(feature, message, session.steps)
    rate = learning_rate(setup.schedule, setup.optimizer.lr, step, session.steps)
    (outcome,) = setup.back.step([Part(feature, batch.order, batch.labels)], rate)
    active = setup.codec.active(batch.codes, session.tables) if setup.calibrator.masked else None
    payload, deviation = setup.calibrator.send(outcome.gradient, active, session.number, step)
    session.stream.update(batch.codes, batch.images)
    seconds = round(time.perf_counter() - start, 6)
    reply = Gradient(session.number, step, round(outcome.loss, 6), outcome.right, round(deviation, 6), seconds, payload)
    session.keep(reply)
    return reply

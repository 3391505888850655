"""Answers evaluate messages: how well the back half classifies; nothing is learned."""

import time

from edgekit.line.messages import Evaluate, Result
from edgekit.server.handlers.batch import unpack_batch
from edgekit.server.session import Session
from edgekit.server.setup import Setup


def evaluate(setup: Setup, session: Session, message: Evaluate) -> Result:
    """Loss and correct answers of the images in `message`."""
    start = time.perf_counter()
    batch = unpack_batch(setup, session, message)
    loss, correct = setup.back.evaluate(batch.feature, batch.order, batch.labels)
    seconds = round(time.perf_counter() - start, 6)
    return Result(session.number, message.step, correct, round(loss, 6), message.images, seconds)

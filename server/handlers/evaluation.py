"""Answers evaluate and tested messages: how the back half classifies; nothing is learned."""

import time
from collections.abc import Sequence
from threading import Condition

from edgekit.line.labels import pack_labels
from edgekit.line.messages import Evaluate, Result, Tally, Tested
from edgekit.server.coder import Coder
from edgekit.server.handlers.batch import unpack_batch
from edgekit.server.session import Session
from edgekit.server.setup import Setup
from edgekit.server.tally import Count


def evaluate(setup: Setup, session: Session, message: Evaluate, coder: Coder, lock: Condition) -> Result:
    """The classes that the images in `message` are taken for, and the loss.

    `coder` is held while they are decoded, `lock` while the back half is used.
    """
    start = time.perf_counter()
    with coder.decoding():
        batch = unpack_batch(setup, session, message)
    with lock:
        loss, predicted = setup.back.evaluate(batch.feature, batch.order, batch.labels)
    count = session.validation if message.validation else session.test
    count.add(message.images, int((predicted == batch.labels).sum()), loss)
    seconds = round(time.perf_counter() - start, 6)
    return Result(session.number, message.step, round(loss, 6), seconds, pack_labels(predicted, setup.classes))


def tally(sessions: Sequence[Session]) -> tuple[Count, Count, float | None]:
    """What the tests of `sessions` came to together, test and validation split; their counts begin anew.

    And the accuracy by which the best pair is chosen, None where nothing was tested: the validation split's where there
    is one, as the test split is for the user to judge by.
    """
    test, validation = Count(), Count()
    for session in sessions:
        test.merge(session.test)
        validation.merge(session.validation)
        session.test, session.validation = Count(), Count()
    return test, validation, (validation if validation.images else test).accuracy if test.images else None


def tally_message(session: Session, epoch: int, test: Count, best: bool) -> Tally:
    """What the device is told of them."""
    return Tally(session.number, epoch, test.images, test.correct, round(test.mean_loss, 6), best)


def missed(session: Session, message: Tested) -> Tally:
    """For a device whose test ended after that of the others: what theirs came to. Its own images are not counted."""
    assert session.missed is not None
    test, session.missed = session.missed, None
    session.test, session.validation = Count(), Count()
    return test._replace(step=message.step)

"""Evaluation: what the deployed pipeline, front half, line and back half, makes of test images."""

from collections import deque
from typing import Any, Deque, Dict, Optional

import numpy as np

from edgekit.line.labels import pack_labels, unpack_labels
from edgekit.line.messages import Evaluate, Result, Tally, Tested
from edgekit.runtime.session import Images, Session


def evaluate(session: Session, test: Images, validation: bool = False) -> Dict[str, Any]:
    """What the deployed pipeline makes of all of `test`: accuracy and balanced accuracy in percent, mean loss, and
    for each class how many images there are and how many were right."""
    session.settle()
    classes = session.front.classes
    right, loss = np.zeros(len(test.labels), dtype=bool), 0.0
    waiting: Deque[int] = deque()
    size = min(session.options.batch, session.front.most or session.options.batch)
    for start in range(0, len(test.labels) + 2 * size, size):
        labels = test.labels[start : start + size]
        if len(labels):
            _send(session, start // size, test.images[start : start + size], labels, validation)
            waiting.append(start)
        if len(waiting) > 1 or (waiting and not len(labels)):
            first = waiting.popleft()
            sent = test.labels[first : first + size]
            result = session.transport.expect(Result)
            right[first : first + size] = unpack_labels(result.predicted, len(sent), classes) == sent
            loss += result.loss * len(sent)
    images = np.bincount(test.labels, minlength=classes)
    correct = np.bincount(test.labels[right], minlength=classes)
    return {
        "accuracy": 100.0 * int(correct.sum()) / max(len(test.labels), 1),
        "balanced_accuracy": balanced(correct, images),
        "test_loss": loss / max(len(test.labels), 1),
        "by_class": {"images": images.tolist(), "correct": correct.tolist()},
    }


def _send(session: Session, index: int, images: np.ndarray, labels: np.ndarray, validation: bool) -> None:
    """Sends test images (n,C,H,W) uint8, coded as deployed; the answer is a Result."""
    front = session.front
    with session.meter.timed("evaluate"):
        payload = session.stream.pack(front.encode(front.normalise(images)))
    packed = pack_labels(labels, front.classes)
    session.transport.send(
        Evaluate(session.welcome.session, index, session.version, len(labels), packed, payload, validation)
    )


def tested_after(epoch: int, session: Session, test: Images, validation: Optional[Images]) -> Dict[str, Any]:
    """What an epoch's event says of the test: of this device's images, and in "fleet" of all devices'."""
    found = evaluate(session, test)
    if validation is not None and len(validation.labels):
        held_out = evaluate(session, validation, validation=True)
        found.update(validation_accuracy=held_out["accuracy"], validation_loss=held_out["test_loss"])
    session.transport.send(Tested(session.welcome.session, epoch))
    with session.meter.timed("evaluate"):
        tally = session.transport.expect(Tally, epoch)
    found["fleet"] = {
        "images": tally.images,
        "accuracy": 100.0 * tally.correct / max(tally.images, 1),
        "test_loss": tally.loss,
        "best": tally.best,
    }
    return found


def balanced(correct: np.ndarray, images: np.ndarray) -> float:
    """Mean over the classes that have images of the share that is correct, in percent."""
    there = images > 0
    return 100.0 * float((correct[there] / images[there]).mean()) if there.any() else 0.0

"""Place: where a device is in its training, so that another process can go on from there."""

import time
from typing import Any, Dict, Optional

from edgekit.line.messages import Gradient, check_count


class Place:
    """The epoch under way, and how much of it is over. All of it is plain values."""

    def __init__(self, begun: int) -> None:
        #: Epochs that were over when the device came, and the epoch under way, from 1.
        self.begun = begun
        self.epoch = begun + 1
        #: Seconds of training so far, and what the server noticed about this device at the latest step.
        self.train_s = 0.0
        self.go()
        self.warning = ""
        #: Mean loss, accuracy in percent and mean loss of the local head, in the latest epoch that learned.
        self.latest = {"loss": 0.0, "accuracy": 0.0, "head": 0.0}
        self.begin()

    def begin(self) -> None:
        """For an epoch of which nothing is over."""
        #: State of the random generator before the epoch's images were put in order.
        self.order: Optional[Dict[str, Any]] = None
        #: Batches and legs that are over; and whether of the next leg all is over but its round.
        self.done = 0
        self.legs = 0
        self.at_round = False
        #: Batches that were over at the latest round.
        self.round_at = 0
        #: Sum of losses, images that were right, and images learned from.
        self.loss, self.right, self.images = 0.0, 0, 0
        #: The local head's sum of losses before.
        self.head_before = 0.0

    def add(self, images: int, reply: Gradient) -> None:
        """For a batch of `images` that is over, and the server's `reply` to it."""
        self.done += 1
        if reply.learned:
            self.loss, self.images = self.loss + reply.loss * images, self.images + images
            self.right += check_count(reply.correct, images, "gradient message: 'correct'")

    def learned(self, head: float) -> float:
        """The epoch's training is over; `head` is the local head's sum of losses now. The latest mean loss."""
        if self.images:
            self.latest = {
                "loss": self.loss / self.images,
                "accuracy": 100.0 * self.right / self.images,
                "head": (head - self.head_before) / self.images,
            }
        return self.latest["loss"]

    def next(self, head: float) -> None:
        """The next epoch begins."""
        self.epoch += 1
        self.begin()
        self.head_before = head
        self.go()

    def go(self) -> None:
        """Seconds of training count from now on."""
        self._since = time.perf_counter()

    def spend(self) -> None:
        """Counts the seconds of training so far."""
        self.train_s += time.perf_counter() - self._since
        self.go()

    def state(self) -> Dict[str, Any]:
        """All of it, as a state (`edgekit.statefile`)."""
        self.spend()
        return {name: value for name, value in vars(self).items() if name != "_since"}

    @classmethod
    def restored(cls, state: Dict[str, Any]) -> "Place":
        """The place that gave `state`."""
        place = cls(state["begun"])
        vars(place).update(state)
        place.go()
        return place

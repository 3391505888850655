"""Sight: what is seen of a run as it goes: batches, events, and what each device did. `status.py` makes words of it.

::

    Steps.on_batch --batch--> seconds of its parts, loss, images     the thread of the device's message calls it,
    events           --event--> how often, and which devices there are   without the service's lock
    streams          --traffic--> frames and bytes
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from edgekit.codecs.base import CodebookCodec, FeatureCodec
from edgekit.line.messages import Gradient
from edgekit.server.events import Event
from edgekit.server.handlers.training import Learned
from edgekit.server.observe.spread import Spread
from edgekit.server.observe.traffic import Traffic, Volume
from edgekit.server.observe.usage import Usage

#: What the seconds of a batch at the server consist of. "train" is its part of the joint step, as in Gradient.
PARTS = ("waiting", "decode", "train", "encode")
#: Events that are counted from the start, so that the first one shows as a rise; others are when they come.
KNOWN = (
    "joined", "left", "away", "back", "round", "tested", "warned", "quarantined", "refused", "not_kept",
    "checkpoint", "went_back",
)  # fmt: skip
#: What a mean loss keeps of itself at each batch.
KEPT = 0.9


@dataclass
class Seen:
    """What is seen of one device, under one name, however often it came."""

    volume: Volume = field(default_factory=Volume)
    usage: Usage = field(default_factory=Usage)
    batches: int = 0
    #: Images that it was trained on.
    images: int = 0
    #: Mean over its latest batches.
    loss: float | None = None
    #: Steps of its latest session.
    step: int = 0
    #: How that ended: "finished", "lost" or "quarantined"; "" while it is there.
    left: str = ""

    def told(self) -> dict[str, Any]:
        """All of it, as in `edgekit.server.observe.status`."""
        return {
            "step": self.step, "batches": self.batches, "images": self.images, "loss": self.loss,
            "bytes_up": self.volume.up, "bytes_down": self.volume.down, "heard": self.volume.heard or None,
            "codebook": self.usage.told(), "left": self.left,
        }  # fmt: skip


class Sight:
    """What is seen of a run with features of `codec`. Threads may use it at any time.

    Of devices that have left it remembers as many as make `most` with those that are there.
    """

    def __init__(self, codec: FeatureCodec, most: int) -> None:
        self.traffic = Traffic()
        self.began = time.time()
        #: Whether the server is about to end.
        self.stopping = False
        self._words = codec.words if isinstance(codec, CodebookCodec) else 0
        self._most = most
        self._lock = Lock()
        self._present: dict[int, str] = {}
        self._devices: dict[str, Seen] = {}
        self._seconds = {part: Spread() for part in PARTS}
        self._events: Counter[str] = Counter(dict.fromkeys(KNOWN, 0))
        self._batches = self._left_out = self._images = self._right = 0
        self._loss: float | None = None
        self._rate: float | None = None
        self._last_step: float | None = None
        self._tested: Event | None = None

    def event(self, event: Event) -> None:
        """Takes note of an event of the server."""
        name = event["event"]
        with self._lock:
            self._events[name] += 1
            if name == "joined":
                self._joined(event["session"], event["device"])
            elif name == "left":
                self._present.pop(event["session"], None)
                self._left(event["device"], "finished" if event["finished"] else "lost")
                self.traffic.end(event["session"])
            elif name == "quarantined":
                self._left(event["device"], name)
            elif name == "tested":
                self._tested = {key: value for key, value in event.items() if key != "event"}

    def went_back(self, sessions: Mapping[int, str]) -> None:
        """The run went back to a checkpoint: it has these sessions, of these devices, and no others."""
        with self._lock:
            for session in self._present:
                self.traffic.end(session)
            self._present.clear()
            for seen in self._devices.values():
                # What was after the checkpoint does not count any more.
                seen.left = "lost" if seen.left in ("", "quarantined") else seen.left
            for session, device in sessions.items():
                self._joined(session, device)

    def batch(self, learned: Learned, gradient: Gradient, seconds: float) -> None:
        """Takes note of a batch that was answered by `gradient`, so many seconds after it came."""
        work, outcome = learned.work, learned.outcome
        encode = gradient.seconds - work.seconds - learned.seconds
        parts = (seconds - gradient.seconds, work.seconds, learned.seconds, encode)
        with self._lock:
            for part, took in zip(PARTS, parts, strict=True):
                # What Gradient says is rounded.
                self._seconds[part].add(max(took, 0.0))
            self._batches += 1
            self._left_out += outcome is None
            seen = self._devices.get(work.session.device)
            if outcome is not None:
                images = work.message.images
                self._images += images
                self._right += outcome.right
                self._loss = _mean(self._loss, outcome.loss)
                self._rate = learned.rate
                self._last_step = time.time()
            if seen is not None:
                seen.batches += 1
                seen.step = work.message.step + 1
                if outcome is not None:
                    seen.images += images
                    seen.loss = _mean(seen.loss, outcome.loss)
        if seen is not None and self._words:
            seen.usage.see(work.batch.codes["codes"], self._words)

    def told(self) -> dict[str, Any]:
        """All that is seen of the run as a whole, as in `edgekit.server.observe.status`."""
        with self._lock:
            return {
                "began": self.began, "stopping": self.stopping, "batches": self._batches,
                "batches_left_out": self._left_out, "images": self._images, "images_right": self._right,
                "loss": self._loss, "rate": self._rate, "last_step": self._last_step, "tested": self._tested,
                "events": dict(self._events),
                "seconds": {part: spread.told() for part, spread in self._seconds.items()},
                **self.traffic.told(),
            }  # fmt: skip

    def devices(self) -> dict[str, dict[str, Any]]:
        """By name, what is seen of each device that is remembered, in the order of their coming."""
        with self._lock:
            return {name: seen.told() for name, seen in self._devices.items()}

    def _joined(self, session: int, device: str) -> None:
        self._present[session] = device
        seen = self._devices.pop(device, None) or Seen()
        seen.step, seen.left = 0, ""
        self._devices[device] = seen
        self.traffic.begin(session, seen.volume)
        present = set(self._present.values())
        for gone in [name for name in self._devices if name not in present]:
            if len(self._devices) <= self._most:
                break
            del self._devices[gone]

    def _left(self, device: str, how: str) -> None:
        seen = self._devices.get(device)
        # Who is put in quarantine leaves after that.
        if seen is not None and not seen.left:
            seen.left = how


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else KEPT * mean + (1 - KEPT) * value

"""Meter: bytes at the frame by direction and kind, seconds by activity; and the writer of record lines."""

import json
import time
from contextlib import contextmanager
from typing import IO, Any, Dict, Iterator, Optional, Tuple

#: Kinds whose bytes are training's own; evaluation traffic is counted, but apart.
TRAINING_KINDS = (
    "hello", "welcome", "feature", "gradient", "codebook", "ack", "bye", "update", "weights", "resume", "resumed",
    "save", "saved",
)  # fmt: skip


class Meter:
    """Counts what a device sends, receives and spends its time on."""

    def __init__(self) -> None:
        #: (direction "up" or "down", message kind) -> bytes of whole frames
        self.bytes: Dict[Tuple[str, str], int] = {}
        #: (direction, kind) -> number of frames
        self.frames: Dict[Tuple[str, str], int] = {}
        #: activity -> seconds
        self.seconds: Dict[str, float] = {}

    def count(self, direction: str, kind: str, n_bytes: int) -> None:
        key = (direction, kind)
        self.bytes[key] = self.bytes.get(key, 0) + n_bytes
        self.frames[key] = self.frames.get(key, 0) + 1

    def training_bytes(self, direction: str) -> int:
        """Bytes of all training frames in `direction`; evaluation is left out."""
        return sum(n for (way, kind), n in self.bytes.items() if way == direction and kind in TRAINING_KINDS)

    def by_kind(self) -> Dict[str, int]:
        """``{"up.feature": bytes, ...}``, for a record."""
        return {"{}.{}".format(*key): n for key, n in sorted(self.bytes.items())}

    def state(self) -> Dict[str, Any]:
        """All counts, as a state (`edgekit.statefile`)."""
        counts = [[*key, n, self.frames[key]] for key, n in sorted(self.bytes.items())]
        return {"counts": counts, "seconds": dict(self.seconds)}

    def restore(self, state: Dict[str, Any]) -> None:
        """Goes on from `state`."""
        self.bytes = {(way, kind): n for way, kind, n, _ in state["counts"]}
        self.frames = {(way, kind): n for way, kind, _, n in state["counts"]}
        self.seconds = dict(state["seconds"])

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Adds the time spent inside to `activity`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spend(activity, time.perf_counter() - start)

    def spend(self, activity: str, seconds: float) -> None:
        """Adds `seconds` to `activity`."""
        self.seconds[activity] = self.seconds.get(activity, 0.0) + seconds


class Recorder:
    """Writes events as JSON lines, each flushed at once so that a reader never waits."""

    def __init__(self, stream: Optional[IO[str]]) -> None:
        self._stream = stream

    def __call__(self, event: Dict[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()

"""Traffic: frames and bytes as they pass between gRPC and the streams, by direction and kind, and of each device.

Counted is what comes and goes, whole frames, before anything is parsed: damaged frames and refused devices too.
"""

import json
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

from edgekit.line.frame import HEAD_SIZE, KINDS

#: What `edgekit.server.streams.Streams.answers` is: the frames of a stream and its context -> the answers' frames.
Answers = Callable[[Iterator[bytes], Any], Iterator[bytes]]
#: The kind of a frame that says none there is.
UNKNOWN = "unknown"
_NAMES = {number: kind for kind, number in KINDS.items()}
#: Where a frame has its kind; and the length of its header and its session (`edgekit.line.frame`).
_KIND, _HEADER_AND_SESSION = 4, struct.Struct("<6xHI")


@dataclass
class Volume:
    """What one device sent and got: bytes of frames; when its last frame came, in seconds since 1970."""

    up: int = 0
    down: int = 0
    heard: float = 0.0


class Traffic:
    """The frames of all streams. Threads may use it at any time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._frames: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[int] = Counter()
        self._of: dict[int, Volume] = {}

    def begin(self, session: int, volume: Volume) -> None:
        """From now on the frames of `session`, the ones of its hello too, count in `volume`."""
        with self._lock:
            self._of[session] = volume

    def end(self, session: int) -> None:
        """No other stream will have `session`; the one that has it goes on counting."""
        with self._lock:
            self._of.pop(session, None)

    def counted(self, answers: Answers) -> Answers:
        """`answers`, with all that passes counted."""

        def through(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            stream = _Stream(self)
            # No generator: where gRPC lets go of this one, nothing may keep `answers` from noticing.
            return map(stream.down, answers(map(stream.up, frames), context))

        return through

    def count(self, way: str, frame: bytes, volume: Volume) -> None:
        """Counts a frame that goes "up" or "down", and in `volume`."""
        with self._lock:
            key = way, kind_of(frame)
            self._frames[key] += 1
            self._bytes[key] += len(frame)
            if way == "up":
                volume.up += len(frame)
                volume.heard = time.time()
            else:
                volume.down += len(frame)
                if key[1] == "error":
                    self._errors[_code(frame)] += 1

    def volume(self, session: int, so_far: Volume) -> Volume:
        """The volume of `session`, to which `so_far` is added; `so_far` itself where the session has ended."""
        with self._lock:
            known = self._of.get(session)
            if known is None:
                return so_far
            known.up += so_far.up
            known.down += so_far.down
            known.heard = max(known.heard, so_far.heard)
            return known

    def told(self) -> dict[str, Any]:
        """Frames and bytes by direction and kind, and errors by code, for `edgekit.server.observe.status`."""
        with self._lock:
            messages = [
                {"direction": way, "kind": kind, "frames": frames, "bytes": self._bytes[way, kind]}
                for (way, kind), frames in sorted(self._frames.items())
            ]
            return {"messages": messages, "errors": {str(code): n for code, n in sorted(self._errors.items())}}


class _Stream:
    """One stream. Before its session is known, what passes is kept for it."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._volume = Volume()

    def up(self, frame: bytes) -> bytes:
        self._traffic.count("up", frame, self._volume)
        return frame

    def down(self, frame: bytes) -> bytes:
        self._traffic.count("down", frame, self._volume)
        if kind_of(frame) in ("welcome", "resumed"):
            _, session = _HEADER_AND_SESSION.unpack_from(frame)
            self._volume = self._traffic.volume(session, self._volume)
        return frame


def kind_of(frame: bytes) -> str:
    """The kind that `frame`, which may be any bytes, says it is of; `UNKNOWN` where there is no such."""
    return _NAMES.get(frame[_KIND], UNKNOWN) if len(frame) > _KIND else UNKNOWN


def _code(frame: bytes) -> int:
    """The exit code in an error message, which the server wrote."""
    length, _ = _HEADER_AND_SESSION.unpack_from(frame)
    return int(json.loads(frame[HEAD_SIZE : HEAD_SIZE + length])["code"])

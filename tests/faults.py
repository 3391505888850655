"""A TCP proxy that does to a line what bad networks do: it cuts, delays, truncates, corrupts and repeats.

It knows HTTP/2's frames, and damages those that hold one of edgekit's. Of HTTP/2 itself it changes nothing: a length
that lies is waited for in silence, and TCP's checksums keep that from a real line.
"""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from edgekit.line.frame import MAGIC

KINDS = ("cut", "delay", "truncate", "corrupt", "repeat")
#: What a client says before its first HTTP/2 frame, and the bytes of a frame's head.
PREFACE, HEAD = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 9


class Fault(NamedTuple):
    """What happens to the first frame in one direction, "up" or "down", after `after` bytes of a connection."""

    kind: str
    way: str
    after: int


def draw(seed: int, n: int, most: int) -> list[Fault]:
    """`n` faults, each within the first `most` bytes of a connection of its own."""
    rng = random.Random(seed)
    return [Fault(rng.choice(KINDS), rng.choice(("up", "down")), rng.randrange(most)) for _ in range(n)]


class FaultyProxy:
    """Connections to `port` go on to `target` ("host:port"). Each takes the next of `faults`, up to one that is no
    delay; then they are sound."""

    def __init__(self, target: str, faults: list[Fault]) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._faults = list(faults)
        #: Faults that came about.
        self.done: list[Fault] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Ends all connections."""
        for each in (self._listener, *self._open):
            _shut(each)

    def break_all(self) -> None:
        """Cuts the connections that there are; new ones are taken."""
        for each in self._open:
            _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                # The server has ended.
                _shut(device)
                continue
            self._open += [device, server]
            faults: list[Fault] = []
            while self._faults and (not faults or faults[-1].kind == "delay"):
                faults.append(self._faults.pop(0))
            for way, source, sink in (("up", device, server), ("down", server, device)):
                own = [fault for fault in faults if fault.way == way]
                threading.Thread(target=self._pump, args=(source, sink, own), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, faults: list[Fault]) -> None:
        seen = 0
        try:
            for frame in _frames(source):
                seen += len(frame)
                ends = False
                if faults and seen > faults[0].after and MAGIC in frame:
                    self.done.append(faults[0])
                    frame, ends = _suffer(frame, faults.pop(0))
                sink.sendall(frame)
                if ends:
                    break
        except OSError:
            # The other direction has ended the connection.
            pass
        for each in (source, sink):
            _shut(each)


def _frames(source: socket.socket) -> Iterator[bytes]:
    """The HTTP/2 frames that come from `source`, and what comes before and after them."""
    waiting = b""
    while chunk := source.recv(65536):
        waiting += chunk
        if waiting.startswith(PREFACE):
            yield PREFACE
            waiting = waiting[len(PREFACE) :]
        while len(waiting) >= HEAD and not PREFACE.startswith(waiting[:HEAD]):
            size = HEAD + int.from_bytes(waiting[:3], "big")
            if len(waiting) < size:
                break
            yield waiting[:size]
            waiting = waiting[size:]
    yield waiting


def _suffer(frame: bytes, fault: Fault) -> tuple[bytes, bool]:
    """What goes on of `frame`, and whether the connection ends."""
    if fault.kind == "delay":
        time.sleep(0.3)
    # Of edgekit's frame any byte: its checksum is over all of them.
    start = frame.index(MAGIC)
    at = start + fault.after % (len(frame) - start)
    what = {
        "cut": b"",
        "delay": frame,
        "truncate": frame[: len(frame) // 2],
        "corrupt": frame[:at] + bytes([frame[at] ^ 0x20]) + frame[at + 1 :],
        "repeat": frame + frame,
    }
    return what[fault.kind], fault.kind in ("cut", "truncate")


def _shut(each: socket.socket) -> None:
    # It may be closed already.
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()

"""A TCP proxy that does to a line what bad networks do: it cuts, delays, truncates, corrupts and repeats."""

import contextlib
import random
import socket
import threading
import time
from typing import NamedTuple

KINDS = ("cut", "delay", "truncate", "corrupt", "repeat")
#: Smallest chunk that is damaged: in smaller ones gRPC's own lengths lie, and a wrong length is waited for in silence.
LEAST = 200


class Fault(NamedTuple):
    """What happens to the first chunk in one direction, "up" or "down", after `after` bytes of a connection."""

    kind: str
    way: str
    after: int


def draw(seed: int, n: int, most: int) -> list[Fault]:
    """`n` faults, each within the first `most` bytes of a connection of its own."""
    rng = random.Random(seed)
    return [Fault(rng.choice(KINDS), rng.choice(("up", "down")), rng.randrange(most)) for _ in range(n)]


class FaultyProxy:
    """Connections to `port` go on to `target` ("host:port"). Each takes the next of `faults`; then they are sound."""

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
            server = socket.create_connection(self._target)
            self._open += [device, server]
            fault = self._faults.pop(0) if self._faults else None
            for way, source, sink in (("up", device, server), ("down", server, device)):
                own = fault if fault is not None and fault.way == way else None
                threading.Thread(target=self._pump, args=(source, sink, own), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, fault: Fault | None) -> None:
        seen = 0
        try:
            while chunk := source.recv(65536):
                seen += len(chunk)
                if fault is not None and seen > fault.after and len(chunk) >= LEAST:
                    self.done.append(fault)
                    chunk, fault, ends = (*_suffer(chunk, fault.kind),)
                    sink.sendall(chunk)
                    if ends:
                        break
                    continue
                sink.sendall(chunk)
        except OSError:
            # The other direction has ended the connection.
            pass
        for each in (source, sink):
            _shut(each)


def _suffer(chunk: bytes, kind: str) -> tuple[bytes, None, bool]:
    """What goes on of `chunk`, that there is no more fault, and whether the connection ends."""
    middle = len(chunk) // 2
    if kind == "delay":
        time.sleep(0.3)
    what = {
        "cut": b"",
        "delay": chunk,
        "truncate": chunk[:middle],
        "corrupt": chunk[:middle] + bytes([chunk[middle] ^ 0x20]) + chunk[middle + 1 :],
        "repeat": chunk + chunk,
    }
    return what[kind], None, kind in ("cut", "truncate")


def _shut(each: socket.socket) -> None:
    # It may be closed already.
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()

"""LinkEmulator: a TCP proxy that forwards bytes both ways at a link's rate and with its delay.

Rate and delay apply to the bytes that the two sides give to TCP. Headers of packets, loss, TCP's slow start and the
round trip of opening a connection are not emulated.
"""

import math
import select
import selectors
import socket
import time
from concurrent import futures

from edgekit.errors import TransportError
from edgekit.link.connections import Connections
from edgekit.link.link import Link

#: The system ends waits too late; the emulator allows for the usual delay, up to so many seconds.
LATE_S = 0.001


class LinkEmulator:
    """Forwards connections at `listen` to `target`, both HOST:PORT, over one `link` that all of them share.

    It works in a thread of its own from construction to `close`; it is a context manager. A connection is closed when
    its target cannot be reached or one side is gone; the others go on. UsageError for a malformed address,
    TransportError for one that cannot be found or bound.
    """

    def __init__(self, link: Link, target: str, listen: str = "127.0.0.1:0", seed: int = 0) -> None:
        self._connections = Connections(link, target, listen, seed)
        #: The port that was bound.
        self.port: int = self._connections.listener.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._selector = self._connections.selector
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._start_s = time.monotonic()
        self._late_s = LATE_S / 8
        self._executor = futures.ThreadPoolExecutor(1)
        self._working = self._executor.submit(self._work)

    @property
    def bytes(self) -> dict[str, int]:
        """The bytes that have arrived: "up" at the target, "down" at the clients."""
        return {"up": self._connections.up.arrived, "down": self._connections.down.arrived}

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._connections.ends) // 2

    @property
    def ended(self) -> int:
        """The number of connections that were forwarded and have ended."""
        return self._connections.ended

    @property
    def unreachable(self) -> int:
        """The number of connections whose target could not be reached."""
        return self._connections.unreachable

    def wait(self, timeout_s: float) -> None:
        """Returns after `timeout_s` seconds; if an error has ended the emulation, raises it."""
        if futures.wait([self._working], timeout_s).done:
            self._working.result()

    def close(self) -> None:
        """Closes every connection at once and stops listening; raises the error that `wait` would."""
        self._waker.close()
        self._executor.shutdown()
        self._working.result()

    def __enter__(self) -> "LinkEmulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        connections = self._connections
        try:
            while True:
                for way in (connections.up, connections.down):
                    connections.deliver(way, self._now() + self._late_s)
                    connections.admit(way, self._now())
                self._wait(min(connections.up.due_s, connections.down.due_s))
                for key, events in self._selector.select(0):
                    if key.data is None:
                        return
                    key.data(events)
        except OSError as error:
            raise TransportError(f"the emulated link broke: {error}") from error
        finally:
            connections.close()
            self._woken.close()

    def _now(self) -> float:
        return time.monotonic() - self._start_s

    def _wait(self, until_s: float) -> None:
        """Waits until a socket is ready or until `until_s`, less the delay by which waits have lately ended late."""
        wait_s = until_s - self._late_s - self._now()
        if wait_s <= 0:
            return
        # select waits to the microsecond; selectors wait for whole milliseconds.
        came, _, _ = select.select([self._selector.fileno()], [], [], wait_s if wait_s < math.inf else None)
        if not came:
            late_s = self._now() - (until_s - self._late_s)
            self._late_s += (min(late_s, LATE_S) - self._late_s) / 16

"""LinkEmulator: a TCP proxy that carries bytes to and fro as a link would, at its rate and with its delay.

Rate and delay hold for the bytes that the two sides hand to TCP. Headers of packets, loss, TCP's slow start and the
round trip of opening a connection are not emulated.
"""

import math
import select
import selectors
import socket
import time
from collections import deque
from concurrent import futures
from functools import partial
from typing import Callable, Deque, Dict, Optional, Set, Tuple

from edgekit.errors import TransportError
from edgekit.link.link import Link
from edgekit.link.shaper import Shaper
from edgekit.link.sockets import listen_at, resolve, stream_socket

#: Seconds of line in a chunk: that much later may a message arrive when its end shares one with the next message.
CHUNK_S = 0.004
CHUNK_BYTES = (64, 1 << 18)
#: Seconds of line read ahead, so that a process that wakes late leaves no gap on it; it reads on at half of that.
AHEAD_S = 0.05
BUFFER_BYTES = (1 << 13, 1 << 21)
#: Waits that end too late are expected to, by up to this.
LATE_S = 0.001
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class LinkEmulator:
    """Forwards connections at `listen` to `target`, both HOST:PORT, over one `link` that all of them share.

    It works in a thread of its own from construction to `close`; a context manager. A target that cannot be reached
    closes the connection, so does a peer that goes; others live on. UsageError for an address that is none,
    TransportError when it cannot be found or bound.
    """

    def __init__(self, link: Link, target: str, listen: str = "127.0.0.1:0", seed: int = 0) -> None:
        self._family, self._target = resolve(target)
        times = link.round_trip_s / 2, link.jitter_s, link.stall_s, link.stall_every_s
        self._up = _Way(link.up_bit_s, Shaper(link.up_bit_s, *times, seed=2 * seed))
        self._down = _Way(link.down_bit_s, Shaper(link.down_bit_s, *times, seed=2 * seed + 1))
        self._ends: Set[_End] = set()
        #: Connections that were forwarded and have ended, and those whose target could not be reached.
        self.ended = self.unreachable = 0
        self._listener = listen_at(listen, self._up.buffer)
        #: The port that was bound.
        self.port: int = self._listener.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, _READ, self._accept)
        self._selector.register(self._woken, _READ, None)
        self._start_s = time.monotonic()
        self._late_s = LATE_S / 8
        self._executor = futures.ThreadPoolExecutor(1)
        self._working = self._executor.submit(self._work)

    @property
    def bytes(self) -> Dict[str, int]:
        """Bytes that have arrived, "up" at the target and "down" at those who connected."""
        return {"up": self._up.arrived, "down": self._down.arrived}

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._ends) // 2

    def wait(self, timeout_s: float) -> None:
        """Returns after `timeout_s`; raises what ended the emulation, should anything."""
        if futures.wait([self._working], timeout_s).done:
            self._working.result()

    def close(self) -> None:
        """Closes every connection at once and stops listening; raises as `wait` does."""
        self._waker.close()
        self._executor.shutdown()
        self._working.result()

    def __enter__(self) -> "LinkEmulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        try:
            while True:
                for way in (self._up, self._down):
                    self._deliver(way)
                    self._admit(way)
                self._wait(min(self._up.due_s, self._down.due_s))
                for key, events in self._selector.select(0):
                    if key.data is None:
                        return
                    key.data(events)
        except OSError as error:
            raise TransportError("the emulated link broke: {}".format(error)) from error
        finally:
            self._selector.close()
            for each in (self._listener, self._woken, *(end.socket for end in self._ends)):
                each.close()

    def _now(self) -> float:
        return time.monotonic() - self._start_s

    def _wait(self, until_s: float) -> None:
        """Until something comes or the time has; of that, as much less as waits have lately ended too late."""
        wait_s = until_s - self._late_s - self._now()
        if wait_s <= 0:
            return
        # To the microsecond, where selectors wait for whole milliseconds.
        came, _, _ = select.select([self._selector.fileno()], [], [], wait_s if wait_s < math.inf else None)
        if not came:
            late_s = self._now() - (until_s - self._late_s)
            self._late_s += (min(late_s, LATE_S) - self._late_s) / 16

    def _admit(self, way: "_Way") -> None:
        """Reads ahead, a chunk from everyone who has sent something, in turn."""
        now_s = self._now()
        while way.ready and way.shaper.left_s < now_s + AHEAD_S:
            self._read(way, way.ready.popleft(), now_s)
        for end in way.ready:
            self._watch(end, _READ, False)

    def _read(self, way: "_Way", end: "_End", now_s: float) -> None:
        if end.closed or end.peer.waiting:
            return
        data: Optional[bytes]
        try:
            data = end.socket.recv(way.chunk)
        except BlockingIOError:
            self._watch(end, _READ, True)
            return
        except OSError:
            data = None  # the peer is gone: what it has sent still arrives
        end.finished = not data
        _, arrives_s = way.shaper.send(len(data or b""), now_s)
        way.flying.append((arrives_s, end.peer, data))
        if len(data or b"") == way.chunk:
            way.ready.append(end)
        else:
            self._watch(end, _READ, not end.finished)

    def _deliver(self, way: "_Way") -> None:
        now_s = self._now() + self._late_s
        while way.flying and way.flying[0][0] <= now_s:
            _, end, data = way.flying.popleft()
            if not end.closed:
                end.waiting.append(data)
                if len(end.waiting) == 1:
                    self._write(end)

    def _write(self, end: "_End") -> None:
        """Writes what has arrived. Where the socket takes no more, nothing is read from the peer until it does."""
        try:
            while end.waiting:
                data = end.waiting[0]
                if data is None:
                    self._end(end)
                    return
                if data:
                    n = end.socket.send(data)
                    end.peer.way.arrived += n
                    end.waiting[0] = data[n:]
                    if n < len(data):
                        continue
                else:
                    end.socket.shutdown(socket.SHUT_WR)
                    end.shut = True
                end.waiting.popleft()
        except BlockingIOError:
            self._watch(end, _WRITE, True)
            self._watch(end.peer, _READ, False)
            return
        except OSError:
            self._end(end)
            return
        if end.shut and end.peer.shut:
            self._end(end)
        elif end.wanted & _WRITE:
            self._watch(end, _WRITE, False)
            self._watch(end.peer, _READ, not end.peer.finished)

    def _accept(self, events: int) -> None:
        try:
            taken, _ = self._listener.accept()
            taken.setblocking(False)
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        near = _End(taken, self._up)
        self._ends.add(near)
        far = _End(stream_socket(self._family, self._down.buffer), self._down)
        self._ends.add(far)
        near.peer, far.peer = far, near
        near.on_event = partial(self._on_end, near)
        far.on_event = partial(self._on_connected, far)
        far.socket.connect_ex(self._target)
        self._watch(far, _WRITE, True)  # whatever becomes of it

    def _on_connected(self, far: "_End", events: int) -> None:
        try:
            far.socket.getpeername()
        except OSError:
            self.unreachable += 1
            self._close(far)
            return
        self._watch(far, _WRITE, False)
        far.on_event = partial(self._on_end, far)
        for end in (far, far.peer):
            self._watch(end, _READ, True)

    def _on_end(self, end: "_End", events: int) -> None:
        if end.closed:
            return  # by what its peer did in the same turn
        if events & _WRITE:
            self._write(end)
        if events & _READ and not end.closed and end not in end.way.ready:
            end.way.ready.append(end)

    def _watch(self, end: "_End", event: int, on: bool) -> None:
        wanted = end.wanted | event if on else end.wanted & ~event
        if wanted == end.wanted:
            return
        if not wanted:
            self._selector.unregister(end.socket)
        elif end.wanted:
            self._selector.modify(end.socket, wanted, end.on_event)
        else:
            self._selector.register(end.socket, wanted, end.on_event)
        end.wanted = wanted

    def _end(self, end: "_End") -> None:
        self.ended += 1
        self._close(end)

    def _close(self, end: "_End") -> None:
        for each in (end, end.peer):
            self._watch(each, _READ | _WRITE, False)
            each.socket.close()
            each.closed = True
            self._ends.remove(each)


class _Way:
    """One direction, and what is on it."""

    def __init__(self, rate_bit_s: float, shaper: Shaper) -> None:
        self.shaper = shaper
        self.chunk = _within(CHUNK_BYTES, CHUNK_S * rate_bit_s / 8)
        #: Bytes that wait in the kernel should be few, but enough to read ahead from.
        self.buffer = _within(BUFFER_BYTES, AHEAD_S * rate_bit_s / 8)
        #: Ends that have bytes to read, but have to wait for their turn.
        self.ready: Deque[_End] = deque()
        #: (arrival, where, bytes), in the order of arrival; b"" ends that direction, None breaks the connection.
        self.flying: Deque[Tuple[float, _End, Optional[bytes]]] = deque()
        self.arrived = 0

    @property
    def due_s(self) -> float:
        """When there is something to do, if nothing comes from outside."""
        arrival_s = self.flying[0][0] if self.flying else math.inf
        return min(arrival_s, self.shaper.left_s - AHEAD_S / 2) if self.ready else arrival_s


class _End:
    """One socket of a connection; `way` is the direction of what is read from it."""

    def __init__(self, taken: socket.socket, way: _Way) -> None:
        self.socket = taken
        self.way = way
        self.peer = self
        #: What has arrived and the socket has not taken yet.
        self.waiting: Deque[Optional[bytes]] = deque()
        #: Events that the selector is asked for, and what they call.
        self.wanted = 0
        self.on_event: Callable[[int], None] = lambda events: None
        #: Nothing more will be read; nothing more will be written; neither.
        self.finished = self.shut = self.closed = False


def _within(bounds: Tuple[int, int], value: float) -> int:
    low, high = bounds
    return int(min(max(low, value), high))

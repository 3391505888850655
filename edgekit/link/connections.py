"""Connections: the sockets that an emulated link forwards, and the bytes that are on their way between them."""

import math
import selectors
import socket
from collections import deque
from collections.abc import Callable
from functools import partial

from edgekit.link.link import Link
from edgekit.link.shaper import Shaper
from edgekit.link.sockets import listen_at, resolve, stream_socket

#: Seconds of line in a chunk: that much later may a message arrive when its end shares one with the next message.
CHUNK_S = 0.004
CHUNK_BYTES = (64, 1 << 18)
#: Seconds of line read ahead, so that a process that wakes late leaves no gap on it; it reads on at half of that.
AHEAD_S = 0.05
BUFFER_BYTES = (1 << 13, 1 << 21)
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Way:
    """One direction, and what is on it."""

    def __init__(self, rate_bit_s: float, shaper: Shaper) -> None:
        self.shaper = shaper
        self.chunk = _within(CHUNK_BYTES, CHUNK_S * rate_bit_s / 8)
        #: Bytes that wait in the kernel should be few, but enough to read ahead from.
        self.buffer = _within(BUFFER_BYTES, AHEAD_S * rate_bit_s / 8)
        #: Ends that have bytes to read, but have to wait for their turn.
        self.ready: deque[End] = deque()
        #: (arrival, where, bytes), in the order of arrival; b"" ends that direction, None breaks the connection.
        self.flying: deque[tuple[float, End, bytes | None]] = deque()
        self.arrived = 0

    @property
    def due_s(self) -> float:
        """When there is something to do, if nothing comes from outside."""
        arrival_s = self.flying[0][0] if self.flying else math.inf
        return min(arrival_s, self.shaper.left_s - AHEAD_S / 2) if self.ready else arrival_s


class End:
    """One socket of a connection; `way` is the direction of what is read from it."""

    def __init__(self, taken: socket.socket, way: Way) -> None:
        self.socket = taken
        self.way = way
        self.peer = self
        #: What has arrived and the socket has not taken yet.
        self.waiting: deque[bytes | None] = deque()
        #: Events that the selector is asked for, and what they call.
        self.wanted = 0
        self.on_event: Callable[[int], None] = lambda events: None
        #: Nothing more will be read; nothing more will be written; neither.
        self.finished = self.shut = self.closed = False


class Connections:
    """Connections taken at `listen` and forwarded to `target`, both HOST:PORT, over one `link` that all of them share.

    It has no clock and never waits. UsageError for an address that is none, TransportError when it cannot be found or
    bound.
    """

    def __init__(self, link: Link, target: str, listen: str, seed: int) -> None:
        self._family, self._target = resolve(target)
        times = link.round_trip_s / 2, link.jitter_s, link.stall_s, link.stall_every_s
        self.up = Way(link.up_bit_s, Shaper(link.up_bit_s, *times, seed=2 * seed))
        self.down = Way(link.down_bit_s, Shaper(link.down_bit_s, *times, seed=2 * seed + 1))
        #: Two for each connection that is open.
        self.ends: set[End] = set()
        #: Connections that were forwarded and have ended, and those whose target could not be reached.
        self.ended = self.unreachable = 0
        self.listener = listen_at(listen, self.up.buffer)
        #: Tells whose socket is ready; what is registered with it is called with the events.
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, _READ, self._accept)

    def close(self) -> None:
        """Closes every connection at once and stops listening."""
        self.selector.close()
        for each in (self.listener, *(end.socket for end in self.ends)):
            each.close()

    def admit(self, way: Way, now_s: float) -> None:
        """Reads ahead, a chunk from everyone who has sent something, in turn."""
        while way.ready and way.shaper.left_s < now_s + AHEAD_S:
            self._read(way, way.ready.popleft(), now_s)
        for end in way.ready:
            self._watch(end, _READ, False)

    def deliver(self, way: Way, now_s: float) -> None:
        """Writes what has arrived until `now_s`."""
        while way.flying and way.flying[0][0] <= now_s:
            _, end, data = way.flying.popleft()
            if not end.closed:
                end.waiting.append(data)
                if len(end.waiting) == 1:
                    self._write(end)

    def _read(self, way: Way, end: End, now_s: float) -> None:
        if end.closed or end.peer.waiting:
            return
        data: bytes | None
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

    def _write(self, end: End) -> None:
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
            taken, _ = self.listener.accept()
            taken.setblocking(False)
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        near = End(taken, self.up)
        self.ends.add(near)
        far = End(stream_socket(self._family, self.down.buffer), self.down)
        self.ends.add(far)
        near.peer, far.peer = far, near
        near.on_event = partial(self._on_end, near)
        far.on_event = partial(self._on_connected, far)
        far.socket.connect_ex(self._target)
        self._watch(far, _WRITE, True)  # whatever becomes of it

    def _on_connected(self, far: End, events: int) -> None:
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

    def _on_end(self, end: End, events: int) -> None:
        if end.closed:
            return  # by what its peer did in the same turn
        if events & _WRITE:
            self._write(end)
        if events & _READ and not end.closed and end not in end.way.ready:
            end.way.ready.append(end)

    def _watch(self, end: End, event: int, on: bool) -> None:
        wanted = end.wanted | event if on else end.wanted & ~event
        if wanted == end.wanted:
            return
        if not wanted:
            self.selector.unregister(end.socket)
        elif end.wanted:
            self.selector.modify(end.socket, wanted, end.on_event)
        else:
            self.selector.register(end.socket, wanted, end.on_event)
        end.wanted = wanted

    def _end(self, end: End) -> None:
        self.ended += 1
        self._close(end)

    def _close(self, end: End) -> None:
        for each in (end, end.peer):
            self._watch(each, _READ | _WRITE, False)
            each.socket.close()
            each.closed = True
            self.ends.remove(each)


def _within(bounds: tuple[int, int], value: float) -> int:
    low, high = bounds
    return int(min(max(low, value), high))

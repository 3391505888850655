"""Connections: the sockets between which an emulated link forwards bytes, and the bytes that are on their way."""

import math
import selectors
import socket
from collections import deque
from collections.abc import Callable
from functools import partial

from edgekit.link.link import Link
from edgekit.link.shaper import Shaper
from edgekit.link.sockets import listen_at, resolve, stream_socket

#: Bytes are forwarded in chunks of so many seconds at the link's rate. When the end of a message is in one chunk with
#: the start of the next message, it arrives up to one chunk late.
CHUNK_S = 0.004
#: Smallest and largest chunk.
CHUNK_BYTES = (64, 1 << 18)
#: So many seconds' worth of bytes are read ahead: a process that wakes up late then leaves no gap on the link. Reading
#: goes on when half of them have left.
AHEAD_S = 0.05
#: Smallest and largest receive buffer of a socket.
BUFFER_BYTES = (1 << 13, 1 << 21)
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Way:
    """One direction of the link, and the bytes that are on their way."""

    def __init__(self, rate_bit_s: float, shaper: Shaper) -> None:
        self.shaper = shaper
        self.chunk = _within(CHUNK_BYTES, CHUNK_S * rate_bit_s / 8)
        #: Receive buffer of the sockets: few bytes should wait in the kernel, but enough to read ahead.
        self.buffer = _within(BUFFER_BYTES, AHEAD_S * rate_bit_s / 8)
        #: Ends that have bytes to read and wait for their turn.
        self.ready: deque[End] = deque()
        #: (time of arrival, end, bytes) in order of time; b"" ends this direction, None breaks the connection.
        self.flying: deque[tuple[float, End, bytes | None]] = deque()
        self.arrived = 0

    @property
    def due_s(self) -> float:
        """The time of the next thing to do, if no socket becomes ready before."""
        arrival_s = self.flying[0][0] if self.flying else math.inf
        return min(arrival_s, self.shaper.left_s - AHEAD_S / 2) if self.ready else arrival_s


class End:
    """One of the two sockets of a connection; `way` is the direction of the bytes that are read from it."""

    def __init__(self, taken: socket.socket, way: Way) -> None:
        self.socket = taken
        self.way = way
        self.peer = self
        #: What has arrived but is not written to the socket yet.
        self.waiting: deque[bytes | None] = deque()
        #: The events that the selector waits for, and the function that is called with them.
        self.wanted = 0
        self.on_event: Callable[[int], None] = lambda events: None
        #: Whether reading has ended, writing has ended, the socket is closed.
        self.finished = self.shut = self.closed = False


class Connections:
    """Accepts connections at `listen` and forwards them to `target`, both HOST:PORT, over one `link` that they share.

    It reads no clock and never waits. UsageError for a malformed address, TransportError for one that cannot be found
    or bound.
    """

    def __init__(self, link: Link, target: str, listen: str, seed: int) -> None:
        self._family, self._target = resolve(target)
        times = link.round_trip_s / 2, link.jitter_s, link.stall_s, link.stall_every_s
        self.up = Way(link.up_bit_s, Shaper(link.up_bit_s, *times, seed=2 * seed))
        self.down = Way(link.down_bit_s, Shaper(link.down_bit_s, *times, seed=2 * seed + 1))
        #: The ends of all open connections, two each.
        self.ends: set[End] = set()
        #: Numbers of connections: forwarded and ended since, and ended because the target could not be reached.
        self.ended = self.unreachable = 0
        self.listener = listen_at(listen, self.up.buffer)
        #: Tells which sockets are ready; the function registered with a socket is to be called with its events.
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, _READ, self._accept)

    def close(self) -> None:
        """Closes every connection at once and stops listening."""
        self.selector.close()
        for each in (self.listener, *(end.socket for end in self.ends)):
            each.close()

    def admit(self, way: Way, now_s: float) -> None:
        """Reads ahead: one chunk in turn from every end that has sent something."""
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
            data = None  # the sender is gone; what it has sent before still arrives
        end.finished = not data
        _, arrives_s = way.shaper.send(len(data or b""), now_s)
        way.flying.append((arrives_s, end.peer, data))
        if len(data or b"") == way.chunk:
            way.ready.append(end)
        else:
            self._watch(end, _READ, not end.finished)

    def _write(self, end: End) -> None:
        """Writes what has arrived. While the socket takes no more, nothing is read from the peer either."""
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
            return  # the client is gone already
        near = End(taken, self.up)
        self.ends.add(near)
        far = End(stream_socket(self._family, self.down.buffer), self.down)
        self.ends.add(far)
        near.peer, far.peer = far, near
        near.on_event = partial(self._on_end, near)
        far.on_event = partial(self._on_connected, far)
        far.socket.connect_ex(self._target)
        self._watch(far, _WRITE, True)  # it becomes writable when it is connected, and also when it failed

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
            return  # closed by its peer's event in the same turn
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

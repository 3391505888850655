"""Transport: an ordered stream of frames to the server, several in flight."""

import gc
import queue
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type, Union

from edgekit.errors import (
    Diverged,
    EdgekitError,
    IdentityError,
    PayloadError,
    Quarantined,
    Refused,
    TransportError,
)
from edgekit.line import frame, messages
from edgekit.line.address import check_address
from edgekit.line.channel import GRPC_OPTIONS, LOOK_S, end_dead, watch
from edgekit.line.frame import METHOD, Message
from edgekit.line.messages import AnyMessage, Error, M, Tally, Weights
from edgekit.line.meter import Meter
from edgekit.runtime.identity.folder import Identity
from edgekit.runtime.identity.look import look
from edgekit.runtime.pace import Pace
from edgekit.runtime.reach import ATTEMPT_S, find, why_not

#: Seconds from one attempt to connect to the next.
AGAIN_S = 1.0
#: The server's errors that mean something of their own to a device, by exit code; any other is Refused.
REASONS: Dict[int, Type[EdgekitError]] = {
    cls.exit_code: cls for cls in (Quarantined, Diverged, IdentityError, TransportError)
}


class Silent(TransportError):
    """The line holds, and the server said nothing for longer than it may."""


class Transport(ABC):
    """Frames go out and come back in order; `meter` counts every byte of them by direction and kind."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def send(self, message: AnyMessage) -> None:
        """Sends `message`; does not wait for the reply."""
        data = frame.encode(messages.pack(message), self._number)
        self._send(data)
        self.meter.count("up", messages.KIND_OF[type(message)], len(data))

    def recv(self, patient: bool = False) -> Message:
        """The next reply as its frame has it, waiting for it; `patient`: as long as the line holds.

        Refused, or what `REASONS` says, when it is an error message; TransportError when none comes.
        """
        reply, size = self._receive(patient)
        self.meter.count("down", reply.kind, size)
        if reply.kind == "error":
            error = messages.parse(reply)
            assert isinstance(error, Error)
            raise REASONS.get(error.code, Refused)("the server refused: {}".format(error.reason))
        return reply

    def expect(self, cls: Type[M], step: Optional[int] = None) -> M:
        """`recv`, parsed; PayloadError unless it is a `cls` (and answers `step`).

        Weights and Tally wait for other devices, which may take their time.
        """
        parsed: Any = self.expect_any(cls)
        if step is not None and parsed.step != step:
            kind = messages.KIND_OF[cls]
            raise PayloadError(
                "got a {} message of step {}, expected {} of step {}".format(kind, parsed.step, kind, step)
            )
        assert isinstance(parsed, cls)
        return parsed

    def expect_any(self, *classes: Type[Any]) -> Any:
        """The same for a reply that may be of any of `classes`."""
        reply = self.recv(any(cls in (Weights, Tally) for cls in classes))
        kinds = [messages.KIND_OF[cls] for cls in classes]
        if reply.kind not in kinds:
            raise PayloadError("got a {} message, expected {}".format(reply.kind, " or ".join(kinds)))
        return messages.parse(reply)

    def begin(self, session: int, token: str) -> None:
        """Says that all messages from now on are those of `session`; `token` is that of Welcome."""
        return None

    def go_on(self, session: int, token: str) -> int:
        """For a device that was started anew: takes `session` up again, see `edgekit.runtime.line`."""
        raise Refused("this line does not take a session up again")

    @property
    def comes_back(self) -> bool:
        """Whether a session goes on over another line when this one breaks."""
        return False

    def close(self) -> None:
        """Ends the stream."""
        return None

    def _receive(self, patient: bool) -> Tuple[Message, int]:
        """The next frame's content and bytes."""
        data = self._recv(patient)
        return frame.decode(data), len(data)

    @property
    def _number(self) -> int:
        """Number of the next message that is sent, see `edgekit.line.frame`."""
        return 0

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    def _recv(self, patient: bool) -> bytes: ...


class Loopback(Transport):
    """A server in the same process: every frame is encoded and decoded all the same."""

    def __init__(self, handle: Callable[[Message], Message], meter: Meter) -> None:
        super().__init__(meter)
        self._handle = handle
        self._replies: List[bytes] = []

    def _send(self, data: bytes) -> None:
        self._replies.append(frame.encode(self._handle(frame.decode(data))))

    def _recv(self, patient: bool) -> bytes:
        if not self._replies:
            raise TransportError("nothing was sent that a reply could answer")
        return self._replies.pop(0)


class Grpc(Transport):
    """gRPC over TCP to ``host:port``, past any proxy: by mutual TLS for a device with an `identity`, else in the clear.

    While no server answers there it goes on trying for `wait_s` seconds, and says once by `on_waiting` why. A reply may
    take `timeout_s` seconds; None: as long as `Pace` says. UsageError for an address that is none, TransportError when
    its host is unknown or the server does not come, IdentityError where TLS keeps the two apart.
    """

    def __init__(
        self,
        address: str,
        meter: Meter,
        wait_s: float = 0.0,
        timeout_s: Optional[float] = None,
        on_waiting: Callable[[str], None] = lambda reason: None,
        identity: Optional[Identity] = None,
    ) -> None:
        super().__init__(meter)
        import grpc

        self._address = address
        _, self._port = check_address(address)
        self._error: Any = grpc.RpcError
        self._channel = _connected(address, wait_s, on_waiting, identity)
        self._outbox: "queue.Queue[Optional[bytes]]" = queue.Queue()
        self._timeout_s = timeout_s
        self._pace = Pace()
        self._stream = self._channel.stream_stream(METHOD)(self._frames())
        self._inbox: "queue.Queue[Union[Tuple[bytes, float], EdgekitError]]" = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _frames(self) -> Iterator[bytes]:
        while True:
            data = self._outbox.get()
            if data is None:
                return
            yield data

    def _send(self, data: bytes) -> None:
        self._pace.sent(len(data), time.monotonic())
        self._outbox.put(data)

    def _recv(self, patient: bool) -> bytes:
        allowed_s = self._pace.allowed_s if self._timeout_s is None else self._timeout_s
        start = looked = time.monotonic()
        came: Union[Tuple[bytes, float], EdgekitError, None] = None
        # In slices: a signal that the system hands to a thread of gRPC's does not wake a wait without end.
        while came is None:
            try:
                came = self._inbox.get(timeout=0.5)
            except queue.Empty:
                now = time.monotonic()
                if now - looked > LOOK_S:
                    looked = now
                    end_dead(self._port)
                if now - start > allowed_s and not patient:
                    raise Silent(
                        "no reply from {} for {:.0f} s, {} B under way; look at the server, or allow more by "
                        "--timeout".format(self._address, allowed_s, self._pace.under_way)
                    ) from None
        if isinstance(came, EdgekitError):
            self._inbox.put(came)
            raise came
        data, when = came
        self._pace.replied(len(data), when, not patient)
        return data

    def _read(self) -> None:
        try:
            for data in self._stream:
                self._inbox.put((data, time.monotonic()))
            self._inbox.put(TransportError("the server at {} ended the stream".format(self._address)))
        except self._error as error:
            self._inbox.put(_broken(self._address, error.code().name, error.details()))

    def close(self) -> None:
        self._outbox.put(None)
        self._stream.cancel()
        self._reader.join()
        self._channel.close()
        # Collected now, while gRPC's threads can still let go of its lock: at the interpreter's end they cannot, and
        # the process would wait for ever.
        self._stream = None
        gc.collect()


def _connected(address: str, wait_s: float, on_waiting: Callable[[str], None], identity: Optional[Identity]) -> Any:
    """A channel to the server at `address`, which answers; see `Grpc`. Each attempt is a channel of its own."""
    _, port = check_address(address)
    find(address)
    until = time.monotonic() + wait_s
    told = False
    while True:
        if identity is not None:
            look(address, identity)  # what TLS has against it is known at once
        channel = _channel(address, identity)
        if _ready(channel):
            watch(port)
            return channel
        channel.close()
        look(address, identity)
        reason = why_not(address)
        if time.monotonic() >= until:
            tried = ", tried for {:g} s (--wait)".format(wait_s) if told else ""
            raise TransportError("no server answers at {}{}: {}".format(address, tried, reason))
        if not told:
            on_waiting(reason)
        told = True
        time.sleep(AGAIN_S)


def _channel(address: str, identity: Optional[Identity]) -> Any:
    import grpc

    options = [
        *GRPC_OPTIONS,
        # A proxy is for the web: one that the environment names mostly knows no way to the server, or to loopback.
        ("grpc.enable_http_proxy", 0),
        # Every channel connects by itself: what failed for one does not hold up the next.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", int(1000 * ATTEMPT_S)),
    ]
    if identity is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*identity.read()), options)


def _ready(channel: Any) -> bool:
    """Whether `channel` is connected, once that is known, or after `ATTEMPT_S` seconds."""
    import grpc

    states: "queue.Queue[Any]" = queue.Queue()
    channel.subscribe(states.put, try_to_connect=True)
    until = time.monotonic() + ATTEMPT_S
    state = grpc.ChannelConnectivity.IDLE
    while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
        try:
            state = states.get(timeout=0.5)
        except queue.Empty:
            if time.monotonic() > until:
                break
    channel.unsubscribe(states.put)
    return bool(state is grpc.ChannelConnectivity.READY)


def _broken(address: str, code: str, details: str) -> EdgekitError:
    """The error of a stream that gRPC ended with `code` and `details`."""
    if code == "RESOURCE_EXHAUSTED":
        return Refused("the server at {} is full: {}; try again when a device has left".format(address, details))
    if code == "UNKNOWN" and details.startswith("Exception"):
        return Refused("the server at {} failed while it answered: {}; its log says more".format(address, details))
    if code == "UNIMPLEMENTED":
        return TransportError("{} speaks gRPC, but is no `edgekit serve`: {}".format(address, details))
    told = "the line to {} broke: {} ({}); start the server again, then this device"
    return TransportError(told.format(address, details, code))

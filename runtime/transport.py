"""Transport: an ordered stream of frames to the server, several in flight."""

import gc
import queue
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type, Union

from edgekit.errors import Diverged, EdgekitError, PayloadError, Quarantined, Refused, TransportError
from edgekit.line import frame, messages
from edgekit.line.frame import MAX_FRAME, METHOD, Message, check_address
from edgekit.line.messages import AnyMessage, Error, M, Tally, Weights
from edgekit.line.meter import Meter

#: Seconds without a reply after which the server is given up.
TIMEOUT_S = 300.0
#: Seconds without any sign of life from the other machine after which the line counts as broken.
KEEPALIVE_S = 80.0
#: The server's errors that mean something of their own to a device, by exit code; any other is Refused.
REASONS: Dict[int, Type[EdgekitError]] = {cls.exit_code: cls for cls in (Quarantined, Diverged)}


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
        reply = self.recv(cls in (Weights, Tally))
        kind = messages.KIND_OF[cls]
        if reply.kind != kind or (step is not None and reply.step != step):
            raise PayloadError(
                "got a {} message of step {}, expected {} of step {}".format(reply.kind, reply.step, kind, step)
            )
        parsed = messages.parse(reply)
        assert isinstance(parsed, cls)
        return parsed

    def begin(self, session: int, token: str) -> None:
        """Says that all messages from now on are those of `session`; `token` is that of Welcome."""
        return None

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
    """gRPC over TCP to ``host:port``, without TLS."""

    def __init__(self, address: str, meter: Meter, connect_s: float = 20.0, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(meter)
        check_address(address)
        import grpc

        self._address = address
        self._error: Any = grpc.RpcError
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MAX_FRAME),
                ("grpc.max_send_message_length", MAX_FRAME),
                ("grpc.keepalive_time_ms", 20000),
                ("grpc.keepalive_timeout_ms", int(KEEPALIVE_S * 1000) - 20000),
            ],
        )
        try:
            grpc.channel_ready_future(self._channel).result(timeout=connect_s)
        except grpc.FutureTimeoutError:
            self._channel.close()
            raise TransportError(
                "nothing answered at {} within {:.0f} s: is `edgekit serve` running there?".format(address, connect_s)
            ) from None
        self._outbox: "queue.Queue[Optional[bytes]]" = queue.Queue()
        self._timeout_s = timeout_s
        self._stream = self._channel.stream_stream(METHOD)(self._frames())
        self._inbox: "queue.Queue[Union[bytes, TransportError]]" = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _frames(self) -> Iterator[bytes]:
        while True:
            data = self._outbox.get()
            if data is None:
                return
            yield data

    def _send(self, data: bytes) -> None:
        self._outbox.put(data)

    def _recv(self, patient: bool) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        data: Union[bytes, TransportError, None] = None
        # In slices: a signal that the system hands to a thread of gRPC's does not wake a wait without end.
        while data is None:
            try:
                data = self._inbox.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() > deadline and not patient:
                    raise TransportError(
                        "no reply from {} for {:.0f} s; look at the server, or allow more by --timeout".format(
                            self._address, self._timeout_s
                        )
                    ) from None
        if isinstance(data, TransportError):
            self._inbox.put(data)
            raise data
        return data

    def _read(self) -> None:
        try:
            for data in self._stream:
                self._inbox.put(data)
            self._inbox.put(TransportError("the server at {} ended the stream".format(self._address)))
        except self._error as error:
            self._inbox.put(
                TransportError(
                    "the line to {} broke: {} ({}); start the server again, then this device".format(
                        self._address, error.details(), error.code().name
                    )
                )
            )

    def close(self) -> None:
        self._outbox.put(None)
        self._stream.cancel()
        self._reader.join()
        self._channel.close()
        # Collected now, while gRPC's threads can still let go of its lock: at the interpreter's end they cannot, and
        # the process would wait for ever.
        self._stream = None
        gc.collect()

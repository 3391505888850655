"""Listener: a Service behind gRPC, one bidirectional stream of frames per device, as bytes and without protobuf."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc

from edgekit.errors import PayloadError, TransportError
from edgekit.line.frame import MAX_FRAME, METHOD, Message, check_address, decode, encode
from edgekit.server.service import Service, error_message

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_FRAME),
    ("grpc.max_send_message_length", MAX_FRAME),
    # Two servers on one port would share the devices between them.
    ("grpc.so_reuseport", 0),
    # A device whose power went is noticed within 80 s. Not sooner: the answer to a sign of life waits behind a message,
    # and an uncompressed batch takes half a minute at 0.25 Mbit/s.
    ("grpc.keepalive_time_ms", 20000),
    ("grpc.keepalive_timeout_ms", 60000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
]


class Listener:
    """A listening server; `port` is the one that was bound."""

    def __init__(self, server: Any, port: int) -> None:
        self._server = server
        self.port = port

    def stop(self, grace_s: float) -> None:
        """Takes no new streams, gives the open ones `grace_s` seconds to end, breaks those left; returns when done."""
        stopped: Event = self._server.stop(grace_s)
        stopped.wait()


def serve(
    service: Service, address: str, max_workers: int, on_ready: Callable[[int], None] = lambda port: None
) -> Listener:
    """Listens at `address` (``host:port``, port 0 for any free one) for up to `max_workers` devices at a time.

    `on_ready` is called with the bound port. UsageError when `address` is none, TransportError when it cannot be bound.
    """
    check_address(address)
    server = grpc.server(
        ThreadPoolExecutor(max_workers, thread_name_prefix="line"),
        options=_OPTIONS,
        # A stream holds its thread; one more than there are threads is refused at once and does not wait in silence.
        maximum_concurrent_rpcs=max_workers,
    )
    _, service_name, method = METHOD.split("/")
    stream = grpc.stream_stream_rpc_method_handler(lambda frames, context: _answers(service, frames, context))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, {method: stream}),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise TransportError(
            f"cannot listen at {address}: {error}; choose another --listen HOST:PORT, or end the process that has it"
        ) from None
    server.start()
    on_ready(port)
    return Listener(server, port)


def _answers(service: Service, frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """A frame for every frame; one that does not parse is answered by an error, and ends the stream."""
    line = Line(service, context)
    try:
        for frame in frames:
            try:
                message = decode(frame, line.number)
            except PayloadError as error:
                if line.number:
                    # It was damaged on the way, or another one was lost: the device sends it again, over another line.
                    context.abort(grpc.StatusCode.DATA_LOSS, str(error))
                yield encode(error_message(error, 0, 0))
                return
            for number, reply in line.answers(message):
                try:
                    answer = encode(reply, number)
                except PayloadError as error:
                    yield encode(error_message(error, reply.session, reply.step))
                    return
                yield answer
    finally:
        line.broke()


class Line:
    """One device's stream of frames; a session goes on over the latest that it took up."""

    def __init__(self, service: Service, context: Any) -> None:
        self._service = service
        self._context = context
        #: Those that it took up.
        self.sessions: set[int] = set()
        #: Number of the next message; 0 where the device does not go on over another line when this one breaks.
        self.number = 0

    def answers(self, message: Message) -> list[tuple[int, Message]]:
        """The answers to `message` with their numbers: one, and after resumed those that had been lost before."""
        if message.kind == "resume":
            resumed, *lost = self._service.resume(message, self)
            if resumed.kind == "resumed":
                self._use(resumed.session)
                self.number = resumed.step + 1
            return [(0, resumed), *enumerate(lost, self.number - len(lost))]
        number, reply = self.number, self._service.handle(message, lambda: self._holds(message.session))
        if reply.kind == "welcome":
            self._use(reply.session)
            self.number = int("token" in reply.header)
        elif self.number:
            self.number += 1
        return [(number, reply)]

    def broke(self) -> None:
        """Says so to the service, for the sessions that are not over."""
        for session in self.sessions:
            self._service.broke(session, self)

    def _use(self, session: int) -> None:
        self.sessions.add(session)
        self._service.use(session, self)

    def _holds(self, session: int) -> bool:
        # A message that its session does not know this line by is refused by the service itself.
        active: bool = self._context.is_active()
        return active and (session not in self.sessions or self._service.holds(session, self))

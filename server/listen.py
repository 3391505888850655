"""Listener: a Service behind gRPC, one bidirectional stream of frames per device, as bytes and without protobuf."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import grpc

from edgekit.errors import TransportError
from edgekit.line.address import check_address
from edgekit.line.channel import GRPC_OPTIONS, LOOK_S, end_dead, watch
from edgekit.line.frame import METHOD
from edgekit.server.door import Door
from edgekit.server.observe import probe
from edgekit.server.observe.traffic import Traffic
from edgekit.server.service import Service
from edgekit.server.streams import REFUSED_AT_ONCE, Streams

_OPTIONS = [
    *GRPC_OPTIONS,
    # Two servers on one port would share the devices between them.
    ("grpc.so_reuseport", 0),
    # gRPC's own signs of life are off, with all that it sets of TCP's: see `edgekit.line.channel`.
    ("grpc.keepalive_time_ms", 0x7FFFFFFF),
]


class Listener:
    """A listening server; `port` is the one that was bound."""

    def __init__(self, server: Any, port: int, streams: Streams) -> None:
        self._server = server
        self._streams = streams
        self.port = port
        self._stopped = Event()
        Thread(target=self._end_dead, name="dead lines", daemon=True).start()

    def stop(self, grace_s: float) -> None:
        """Takes no new streams, gives the open ones `grace_s` seconds to end, breaks those left; returns when done."""
        stopped: Event = self._server.stop(grace_s)
        stopped.wait()
        self._stopped.set()
        self._streams.close()

    def _end_dead(self) -> None:
        """Looks for devices that are gone."""
        while not self._stopped.wait(LOOK_S):
            end_dead(self.port)


def serve(
    service: Service,
    address: str,
    max_workers: int,
    on_ready: Callable[[int], None] = lambda port: None,
    door: Door | None = None,
    traffic: Traffic | None = None,
) -> Listener:
    """Listens at `address` (``host:port``, port 0 for any free one) for up to `max_workers` devices at a time.

    With a `door` it takes enrolled devices alone, by mutual TLS; without one everybody, in the clear. `traffic` counts
    what passes. gRPC's health service is served beside the line.
    `on_ready` is called with the bound port. UsageError when `address` is none, TransportError when it cannot be bound.
    """
    check_address(address)
    streams, threads = Streams(service, max_workers, door), max_workers + REFUSED_AT_ONCE
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="line"),
        options=_OPTIONS,
        # A stream holds its thread; one more than there are threads is refused at once and does not wait in silence.
        maximum_concurrent_rpcs=threads,
    )
    _, service_name, method = METHOD.split("/")
    answers = streams.answers if traffic is None else traffic.counted(streams.answers)
    line = grpc.method_handlers_generic_handler(service_name, {method: grpc.stream_stream_rpc_method_handler(answers)})
    server.add_generic_rpc_handlers((line, probe.handler()))
    try:
        port = server.add_insecure_port(address) if door is None else door.bind(server, address)
    except RuntimeError as error:
        raise TransportError(
            f"cannot listen at {address}: {error}; choose another --listen HOST:PORT, or end the process that has it"
        ) from None
    watch(port)
    server.start()
    on_ready(port)
    return Listener(server, port, streams)

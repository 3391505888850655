"""Probe: gRPC's health service (grpc.health.v1.Health) on the line's port, for programs that ask every gRPC server.

Its two messages are so small that they are written here byte for byte (docs/decisions.md): protobuf, which would
write them, is not needed. HealthCheckRequest has one field, number 1, the name of a service; HealthCheckResponse one
too, number 1, the status.

A server that answers is well: it takes no more questions from the moment that it begins to end.
"""

from typing import Any

import grpc

from edgekit.line.frame import METHOD

SERVICE = "grpc.health.v1.Health"
#: The service that the line is; the empty name asks for the server as a whole.
LINE = METHOD.split("/")[1]
#: Bytes of a request for each of the two. An empty name may be left out.
ASKED = (b"", b"\x0a\x00", b"\x0a" + bytes([len(LINE)]) + LINE.encode())
SERVING = b"\x08\x01"


def check(request: bytes, context: Any) -> bytes:
    """The response to the bytes of a request; NOT_FOUND where it asks for a service that is not here."""
    if request not in ASKED:
        context.abort(
            grpc.StatusCode.NOT_FOUND, f"only {LINE} is served here, and the server as a whole, without a name"
        )
    return SERVING


def handler() -> Any:
    """What gRPC's server takes, as bytes and without protobuf."""
    return grpc.method_handlers_generic_handler(SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(check)})

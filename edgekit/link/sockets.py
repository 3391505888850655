"""Sockets of an emulated link: addresses resolved and bound, and little room for bytes in the kernel."""

import socket
from typing import Any, Tuple

from edgekit.errors import TransportError
from edgekit.line.frame import check_address

#: Largest segment. Over loopback it would be 64 KB, and the peer's send buffer, a multiple of it, 2.5 MB from the
#: start: its bytes would count as sent long before the link takes them.
SEGMENT_BYTES = 1448


def stream_socket(family: int, buffer: int) -> socket.socket:
    """A TCP socket that receives `buffer` bytes ahead, or as a listener has connections that do; it never waits."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.setblocking(False)
    return made


def resolve(address: str) -> Tuple[int, Any]:
    """Family and socket address of HOST:PORT; of a host that has several, IPv4. UsageError, TransportError."""
    check_address(address)
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransportError("cannot find {}: {}; expected HOST:PORT".format(address, error)) from None
    family, _, _, _, where = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, where


def listen_at(address: str, buffer: int) -> socket.socket:
    """A listener at HOST:PORT, port 0 for any free one. UsageError, TransportError when it cannot be bound."""
    family, where = resolve(address)
    listener = stream_socket(family, buffer)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise TransportError(
            "cannot listen at {}: {}; choose another HOST:PORT, or end the process that has it".format(
                address, error.strerror
            )
        ) from None
    return listener

"""The sockets of an emulated link: small buffers, so that few bytes wait in the kernel, where no link delays them."""

import socket
from typing import Any

from edgekit.errors import TransportError
from edgekit.line.address import check_address

#: TCP's largest segment, as over Ethernet. Over loopback it would be 64 KB, and the peer's send buffer, a multiple of
#: it, 2.5 MB from the start: the peer would take bytes as sent long before the link takes them.
SEGMENT_BYTES = 1448


def stream_socket(family: int, buffer: int) -> socket.socket:
    """A non-blocking TCP socket with a receive buffer of `buffer` bytes; a listener's connections get the same."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.setblocking(False)
    return made


def resolve(address: str) -> tuple[int, Any]:
    """Family and socket address of HOST:PORT, IPv4 where the host has both. UsageError, TransportError."""
    host, port = check_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransportError(f"cannot find {address}: {error}; expected HOST:PORT") from None
    family, _, _, _, where = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, where


def listen_at(address: str, buffer: int) -> socket.socket:
    """A listening socket at HOST:PORT; port 0 takes any free one. UsageError; TransportError when it is taken."""
    family, where = resolve(address)
    listener = stream_socket(family, buffer)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise TransportError(
            f"cannot listen at {address}: {error.strerror}; choose another HOST:PORT, or end the process that has it"
        ) from None
    return listener

"""What both ends ask of gRPC and of TCP: no compression, and signs of life that no message delays.

gRPC's own sign of life, a ping, waits behind the message that is being carried: 0.5 MB take 40 s at 100 kbit/s, each
way, and a line that works looks dead. TCP's acknowledgements come while a message is carried, so a line counts as
broken when for `DEAD_S` none came; the kernel asks for one when nothing is under way. gRPC has no option for that: its
sockets are found among the process's files, as Linux shows them. TCP_USER_TIMEOUT would break a line whose receiver
reads slowly, in small pieces: its clock goes on while bytes move.
"""

import contextlib
import os
import socket
import stat
import struct
from typing import Callable, List, Tuple

from edgekit.errors import TransportError
from edgekit.line.frame import MAX_FRAME

#: Seconds without any sign of life from the other machine after which the line counts as broken.
DEAD_S = 80.0
#: Seconds of silence after which TCP asks for a sign, and between two questions.
IDLE_S, AGAIN_S = 20, 10
#: Seconds from one look at the connections to the next.
LOOK_S = 5.0
#: Of Linux's struct tcp_info: state, milliseconds since data came, and since an acknowledgement came.
_TCP_INFO = struct.Struct("=B51xII")
_ESTABLISHED = 1
GRPC_OPTIONS: List[Tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_FRAME),
    ("grpc.max_send_message_length", MAX_FRAME),
    # Frames are compressed as far as they can be. A peer's small message could unfold to MAX_FRAME bytes: any
    # algorithm but identity, number 0, is refused before anything is unfolded.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
]


def watch(port: int) -> int:
    """TCP asks for signs of life on what listens at `port`, what that accepts, and the connections to it.

    Returns how many there are. A connection on which nothing is under way breaks by itself `DEAD_S` after the last
    sign; `end_dead` sees to the others.
    """
    return _count(_ask_for_signs, port)


def end_dead(port: int) -> int:
    """Ends the connections at `port` and to it that have given no sign of life for `DEAD_S`; how many those were."""
    return _count(_end_if_dead, port)


def _ask_for_signs(line: socket.socket) -> bool:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, AGAIN_S)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(int((DEAD_S - IDLE_S) / AGAIN_S), 1))
    return True


def _end_if_dead(line: socket.socket) -> bool:
    state, data_ms, sign_ms = _TCP_INFO.unpack(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    dead = state == _ESTABLISHED and min(data_ms, sign_ms) >= 1000 * DEAD_S
    if dead:
        line.shutdown(socket.SHUT_RDWR)
    return bool(dead)


def _count(act: Callable[[socket.socket], bool], port: int) -> int:
    """For how many TCP sockets of this process with `port` at one of their ends `act` says yes. TransportError."""
    try:
        files = os.listdir("/proc/self/fd")
    except OSError as error:
        raise TransportError("cannot watch the line: /proc/self/fd cannot be read ({})".format(error)) from None
    count = 0
    for number in files:
        # A file or connection may have been closed since: then there is nothing to watch.
        with contextlib.suppress(OSError):
            copy = os.dup(int(number))
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                os.close(copy)
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=copy) as found:
                count += _is_tcp(found) and port in _ports(found) and act(found)
    return count


def _is_tcp(found: socket.socket) -> bool:
    family = found.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    kind = found.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    return family in (socket.AF_INET, socket.AF_INET6) and kind == socket.SOCK_STREAM


def _ports(line: socket.socket) -> List[int]:
    """The port of this end, and of the other where there is one."""
    ports = [line.getsockname()[1]]
    with contextlib.suppress(OSError):
        ports.append(line.getpeername()[1])
    return ports

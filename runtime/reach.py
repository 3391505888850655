"""Why a server cannot be reached, as a socket finds it: gRPC says less, in other words with every version."""

import socket

from edgekit.errors import TransportError
from edgekit.line.address import check_address

#: Seconds that one attempt to connect may take.
ATTEMPT_S = 10.0


def find(address: str) -> None:
    """UsageError when `address` is not HOST:PORT; TransportError when its host is unknown."""
    host, port = check_address(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TransportError(
            "{}: the host {} is unknown here ({}): look for a mistake in its name, or give its number".format(
                address, host, reason
            )
        ) from None


def why_not(address: str, wait_s: float = ATTEMPT_S) -> str:
    """What is wrong at `address`, where gRPC found no server, and what to do."""
    host, port = check_address(address)
    try:
        socket.create_connection((host, port), wait_s).close()
    except ConnectionRefusedError:
        return "nothing listens at that port: start `edgekit serve` there, or correct the port"
    except socket.timeout:
        return "no answer within {:g} s: is the machine on, the address right, and no firewall between?".format(wait_s)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return "there is no way to it ({}): look at network and address".format(reason)
    return "something listens there that does not answer as `edgekit serve` does: is it the right port?"
